{{/* What the operator may do in each namespace that it works in. config/rbac/role.yaml has the same. */}}
{{- define "ringwire.namespacedRules" -}}
# What people write. Of these the operator only makes the default MediaGateway.
- apiGroups: [ringwire.dev]
  resources: [sipproviders, phonenumbers, voiceagents, mediagateways]
  verbs: [get, list, watch]
- apiGroups: [ringwire.dev]
  resources: [mediagateways]
  verbs: [create, patch]
- apiGroups: [ringwire.dev]
  resources: [sipproviders/status, phonenumbers/status, voiceagents/status, mediagateways/status]
  verbs: [get, patch, update]
# Credentials are read; what the pods must know is written.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, update, patch, delete]
# The default gateway's spec.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch]
# What a gateway is made of.
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, update, patch, delete]
# Given on to registrar pods; nobody can give a right that he has not.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, update, patch, delete]
# What goes on.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* What does not live in a namespace: the addresses of nodes, the labels of namespaces. */}}
{{- define "ringwire.clusterRules" -}}
- apiGroups: [""]
  resources: [nodes, namespaces]
  verbs: [get, list, watch]
{{- end -}}
