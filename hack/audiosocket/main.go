// An AudioSocket agent for the end-to-end tests, with the library of the protocol's authors. It prints one JSON object in a line for
// each thing that happens, but for audio, which it counts.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net"
	"os"
	"sync"

	"github.com/CyCoreSystems/audiosocket"
)

var (
	echo = flag.Bool("echo", false, "send the caller's audio back")
	say  = flag.String("say", "", "play this file (signed linear, 16 bits, 8 kHz), then hang up")

	output sync.Mutex
)

func tell(event map[string]any) {
	output.Lock()
	defer output.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(event); err != nil {
		log.Fatal(err)
	}
}

func main() {
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	tell(map[string]any{"event": "listening", "address": listener.Addr().String()})
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		tell(map[string]any{"event": "accepted"})
		go serve(connection)
	}
}

func serve(connection net.Conn) {
	defer connection.Close()
	id, err := audiosocket.GetID(connection)
	if err != nil {
		tell(map[string]any{"event": "error", "error": err.Error()})
		return
	}
	tell(map[string]any{"event": "id", "id": id.String()})
	if *say != "" {
		go speak(connection)
	}
	frames, bytes := 0, 0
	for {
		message, err := audiosocket.NextMessage(connection)
		if err != nil {
			tell(map[string]any{"event": "closed", "error": err.Error(), "frames": frames})
			return
		}
		switch message.Kind() {
		case audiosocket.KindHangup:
			tell(map[string]any{"event": "hangup", "frames": frames, "bytes": bytes})
		case audiosocket.KindDTMF:
			tell(map[string]any{"event": "digit", "digit": string(message.Payload())})
		case audiosocket.KindSlin:
			frames++
			bytes += int(message.ContentLength())
			if *echo {
				if _, err := connection.Write(audiosocket.SlinMessage(message.Payload())); err != nil {
					tell(map[string]any{"event": "error", "error": err.Error()})
					return
				}
			}
		default:
			tell(map[string]any{"event": "unknown", "kind": message.Kind()})
		}
	}
}

func speak(connection net.Conn) {
	audio, err := os.ReadFile(*say)
	if err == nil {
		err = audiosocket.SendSlinChunks(connection, audiosocket.DefaultSlinChunkSize, audio)
	}
	if err == nil {
		_, err = connection.Write(audiosocket.HangupMessage())
	}
	if err != nil {
		tell(map[string]any{"event": "error", "error": err.Error()})
	}
}
