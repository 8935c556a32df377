{{- /*
bistil.servers: what gets a Deployment, as {servers: [{name, languages, labels, replicas, resources, config}]}: one for all
languages with layout shared, else one a language.
*/ -}}
{{- define "bistil.servers" -}}
{{- $enabled := list -}}
{{- range $language := keys .Values.languages | sortAlpha -}}
{{- if (get $.Values.languages $language).enabled -}}{{- $enabled = append $enabled $language -}}{{- end -}}
{{- end -}}
{{- if not $enabled -}}
{{- fail "no language is enabled: set for example languages.ha.enabled=true" -}}
{{- end -}}
{{- $component := dict "app.kubernetes.io/component" "server" -}}
{{- $servers := list -}}
{{- if eq .Values.layout "shared" -}}
{{- range $language := $enabled -}}
{{- if gt (len (get $.Values.languages $language)) 1 -}}
{{- fail (printf "languages.%s may hold nothing but enabled with layout shared: set layout=perLanguage" $language) -}}
{{- end -}}
{{- end -}}
{{- $servers = append $servers (dict "name" (include "bistil.fullname" .) "languages" $enabled "labels" $component
      "replicas" .Values.replicas "resources" .Values.resources "config" .Values.config) -}}
{{- else -}}
{{- range $language := $enabled -}}
{{- $own := get $.Values.languages $language -}}
{{- $name := printf "%s-%s" (include "bistil.fullname" $) (lower $language) -}}
{{- range $servers -}}
{{- if eq .name $name -}}
{{- fail (printf "languages.%s and languages.%s would both be the Deployment %s: disable one, or set layout=shared" (first .languages) $language $name) -}}
{{- end -}}
{{- end -}}
{{- $servers = append $servers (dict
      "name" $name
      "languages" (list $language)
      "labels" (merge (dict "language" $language) $component)
      "replicas" (ternary $own.replicas $.Values.replicas (hasKey $own "replicas"))
      "resources" (ternary $own.resources $.Values.resources (hasKey $own "resources"))
      "config" (mergeOverwrite (dict) $.Values.config (default dict $own.config))) -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "servers" $servers) -}}
{{- end -}}

{{- /* bistil.setting: a value as a variable's text. Numbers go through JSON: as text, Helm writes 2000000 as 2e+06. */ -}}
{{- define "bistil.setting" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if kindIs "string" . -}}
{{- . -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{- /* bistil.environment (dict root, server): the server's variables, each once. */ -}}
{{- define "bistil.environment" -}}
{{- $values := .root.Values -}}
{{- $store := $values.modelStore -}}
{{- $variables := dict "BISTIL_HOST" "0.0.0.0" "BISTIL_PORT" "8000" "BISTIL_CACHE" "/cache" "BISTIL_LANG" (join "," .server.languages) -}}
{{- if $store.url -}}
{{- $_ := set $variables "BISTIL_STORE" $store.url -}}
{{- if hasPrefix "hf://" $store.url -}}
{{- $_ := set $variables "HF_HUB_OFFLINE" "0" -}}
{{- end -}}
{{- else if or $store.existingClaim $store.create -}}
{{- $_ := set $variables "BISTIL_STORE" "/store" -}}
{{- end -}}
{{- if $values.apiKeys.existingSecret -}}
{{- $_ := set $variables "BISTIL_KEYS_FILE" "/etc/bistil/keys" -}}
{{- end -}}
{{- if $values.gpu.enabled -}}
{{- $_ := set $variables "BISTIL_DEVICE" "cuda" -}}
{{- end -}}
{{- range $key, $value := .server.config -}}
{{- $_ := set $variables (printf "BISTIL_%s" (upper $key)) (include "bistil.setting" $value) -}}
{{- end -}}
{{- include "bistil.variables" (mergeOverwrite $variables $values.env) -}}
{{- end -}}

{{- /* bistil.variables: a map from names to values as a container's env. */ -}}
{{- define "bistil.variables" -}}
{{- $list := list -}}
{{- range $key, $value := . -}}
{{- $list = append $list (dict "name" $key "value" $value) -}}
{{- end -}}
{{- toYaml $list -}}
{{- end -}}

{{- /* bistil.storeClaim: the name of the claim that holds the store, or nothing. */ -}}
{{- define "bistil.storeClaim" -}}
{{- if .Values.modelStore.existingClaim -}}
{{- .Values.modelStore.existingClaim -}}
{{- else if .Values.modelStore.create -}}
{{- printf "%s-store" (include "bistil.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- /* bistil.probe (list probe, path) */ -}}
{{- define "bistil.probe" -}}
httpGet:
  path: {{ index . 1 }}
  port: http
{{ toYaml (index . 0) }}
{{- end -}}

{{- /* bistil.remote (list condition...): the egress rules for DNS and HTTPS where any condition holds. */ -}}
{{- define "bistil.remote" -}}
{{- $any := false -}}
{{- range . -}}{{- if . -}}{{- $any = true -}}{{- end -}}{{- end -}}
{{- if $any }}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
- ports:
    - port: 443
      protocol: TCP
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{- /*
bistil.request: what `helm test` and the notes ask of the first server, as {server, path, body}. Without config.tasks it is for ner,
which every language of the image has.
*/ -}}
{{- define "bistil.request" -}}
{{- $server := first (include "bistil.servers" . | fromYaml).servers -}}
{{- $task := first (default (list "ner") $server.config.tasks) -}}
{{- $text := .Values.test.text -}}
{{- $inputs := ternary (dict "question" $text "context" $text) $text (eq $task "qa") -}}
{{- $path := printf "/v1/%s/%s" (first $server.languages) $task -}}
{{- toYaml (dict "server" $server.name "path" $path "body" (toJson (dict "inputs" $inputs))) -}}
{{- end -}}
