{{- define "profiler.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "profiler.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "profiler.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "profiler.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "profiler.selector" -}}
app.kubernetes.io/name: {{ include "profiler.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "profiler.labels" -}}
{{ include "profiler.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "profiler.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "profiler.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "profiler.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* The port of config.telemetry.listen: probes go there. */}}
{{- define "profiler.port" -}}
{{- $telemetry := default dict .Values.config.telemetry }}
{{- $listen := default "" $telemetry.listen }}
{{- if not (regexMatch ":[0-9]+$" $listen) }}
{{- fail "config.telemetry.listen has to be ADDRESS:PORT: the probes of the pod are answered there" }}
{{- end }}
{{- if regexMatch "^(127\\.|localhost|\\[::1\\])" $listen }}
{{- fail "config.telemetry.listen is a loopback address, where the kubelet's probes do not come: take 0.0.0.0:9464" }}
{{- end }}
{{- regexFind "[0-9]+$" $listen }}
{{- end }}
