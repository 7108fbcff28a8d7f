{{/* Names leave room for the longest suffix, -operator-metrics: a Service's name ends at 63 characters. */}}
{{- define "ringwire.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ringwire.operatorName" -}}
{{- include "ringwire.fullname" . }}-operator
{{- end -}}

{{- define "ringwire.defaultGatewayConfigName" -}}
{{- include "ringwire.fullname" . }}-default-gateway
{{- end -}}

{{- define "ringwire.serviceAccountName" -}}
{{- default (ternary (include "ringwire.operatorName" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Must not change: a Deployment's selector is immutable. */}}
{{- define "ringwire.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "ringwire.labels" -}}
{{ include "ringwire.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "ringwire.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- .Values.image.repository }}{{ ternary "@" ":" (hasPrefix "sha256:" $tag) }}{{ $tag }}
{{- end -}}

{{/* The namespaces to work in, as a JSON list; empty for all. */}}
{{- define "ringwire.namespaces" -}}
{{- if .Values.watchNamespaces -}}
{{- concat .Values.watchNamespaces .Values.sharedGatewayNamespaces (list .Release.Namespace) | uniq | sortAlpha | toJson -}}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* The default gateway's spec. Its pods come from the same registry as the operator. */}}
{{- define "ringwire.defaultGatewaySpec" -}}
{{- $spec := deepCopy .Values.defaultGateway.spec -}}
{{- if and .Values.imagePullSecrets (not (hasKey (default dict $spec.podTemplate) "imagePullSecrets")) -}}
{{- $_ := set $spec "podTemplate" (merge (dict "imagePullSecrets" .Values.imagePullSecrets) (default dict $spec.podTemplate)) -}}
{{- end -}}
{{- toYaml $spec -}}
{{- end -}}
