// Builds the AudioSocket agent of the end-to-end tests.
module ringwire.dev/hack/audiosocket

go 1.26.0

require github.com/CyCoreSystems/audiosocket v0.3.0

require github.com/google/uuid v1.6.0 // indirect
