{{/* Names, labels and the parts that several templates share. */}}

{{- define "guestkit.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "guestkit.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
guestkit.io/pool: {{ . }}
{{- end }}
{{- end -}}

{{- define "guestkit.labels" -}}
{{ include "guestkit.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "guestkit.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* A pool's settings: its own over those of all workers. */}}
{{- define "guestkit.pool" -}}
{{- mergeOverwrite (deepCopy .root.Values.worker) (deepCopy (.settings | default dict)) | toYaml -}}
{{- end -}}

{{- define "guestkit.workerName" -}}
{{- $base := include "guestkit.fullname" .root -}}
{{- if eq .pool "default" -}}{{ $base }}-worker{{- else -}}{{ $base }}-worker-{{ .pool }}{{- end -}}
{{- end -}}

{{/* ".gpu" for the pool gpu, nothing for the default one: how topics, group and ids are named. */}}
{{- define "guestkit.poolSuffix" -}}
{{- if ne .pool "default" -}}.{{ .pool }}{{- end -}}
{{- end -}}

{{/* Settings that every program has, as data of a ConfigMap; properties are those of the program's own user. */}}
{{- define "guestkit.commonSettings" -}}
{{- $properties := .properties -}}
{{- with .root -}}
GUESTKIT_BOOTSTRAP_SERVERS: {{ .Values.kafka.bootstrapServers | quote }}
GUESTKIT_TOPIC_PREFIX: {{ .Values.kafka.topicPrefix | quote }}
GUESTKIT_GROUP_ID: {{ .Values.kafka.groupId | quote }}
{{- with .Values.schemaRegistry.url }}
GUESTKIT_SCHEMA_REGISTRY_URL: {{ . | quote }}
{{- end }}
{{- with .Values.schemaRegistry.user }}
GUESTKIT_SCHEMA_REGISTRY_USER: {{ . | quote }}
{{- end }}
{{- with .Values.otlp.endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ . | quote }}
{{- end }}
{{- range $name, $value := merge (deepCopy ($properties | default dict)) .Values.kafka.properties }}
KAFKA_{{ $name | upper | replace "." "_" }}: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* All secrets of a program by file name: those of the registry, of Kafka, of its own user. */}}
{{- define "guestkit.secrets" -}}
{{- $all := merge (deepCopy (.own | default dict)) .root.Values.kafka.secretFiles -}}
{{- range $name := list "password" "ca" -}}
{{- $secret := index $.root.Values.schemaRegistry $name -}}
{{- if $secret.secretName -}}
{{- $_ := set $all (printf "registry.%s" $name) $secret -}}
{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* The variables that name them. Properties of librdkafka that name a file get its path, all others are read from it. */}}
{{- define "guestkit.secretSettings" -}}
{{- range $name, $secret := . }}
{{- if eq $name "registry.password" }}
GUESTKIT_SCHEMA_REGISTRY_PASSWORD_FILE: /etc/guestkit/secrets/{{ $name }}
{{- else if eq $name "registry.ca" }}
GUESTKIT_SCHEMA_REGISTRY_CA: /etc/guestkit/secrets/{{ $name }}
{{- else }}
KAFKA_{{ $name | upper | replace "." "_" }}{{ if not (hasSuffix ".location" $name) }}_FILE{{ end }}: /etc/guestkit/secrets/{{ $name }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "guestkit.secretVolume" -}}
{{- with . }}
- name: secrets
  projected:
    # Readable by the one user of the pod.
    defaultMode: 0440
    sources:
      {{- range $name, $secret := . }}
      - secret:
          name: {{ $secret.secretName }}
          items:
            - key: {{ $secret.key | quote }}
              path: {{ $name }}
      {{- end }}
{{- end }}
{{- end -}}

{{/* Pod security "restricted" and a little more. */}}
{{- define "guestkit.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
# Secrets and volumes belong to this group.
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "guestkit.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "guestkit.podCommon" -}}
# Nothing here talks to Kubernetes.
automountServiceAccountToken: false
# Or a Service of the name kafka would set KAFKA_PORT, which looks like a librdkafka property.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "guestkit.podSecurity" . | nindent 2 }}
{{- end -}}

{{/* Spread, but never leave a pod pending for it: a job that waits is worse than two pods on a node. */}}
{{- define "guestkit.spread" -}}
{{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "guestkit.selector" $ | nindent 6 }}
{{- end }}
{{- end -}}

{{/* A rule of a network policy: ports, and peers if any are named. */}}
{{- define "guestkit.egressRule" -}}
- ports:
    {{- range .ports }}
    - protocol: TCP
      port: {{ . }}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "guestkit.dnsRule" -}}
- ports:
    - protocol: UDP
      port: 53
    - protocol: TCP
      port: 53
{{- end -}}
