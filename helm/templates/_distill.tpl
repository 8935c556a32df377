{{- /* bistil.distillSpec (dict root, job): the immutable part of the spec of the Job of that name. */ -}}
{{- define "bistil.distillSpec" -}}
{{- $job := .job }}
{{- with .root }}
{{- $distill := .Values.distill }}
{{- $name := include "bistil.fullname" . }}
{{- $claim := include "bistil.storeClaim" . }}
{{- $url := .Values.modelStore.url }}
{{- $nodes := int $distill.nodes }}
{{- $gpus := int $distill.gpus -}}
completionMode: Indexed
completions: {{ mul $nodes (len $distill.languages) }}
backoffLimitPerIndex: {{ $distill.retries }}
template:
  metadata:
    labels:
      {{- include "bistil.selector" . | nindent 6 }}
      app.kubernetes.io/component: distill
  spec:
    restartPolicy: Never
    {{- if gt $nodes 1 }}
    subdomain: {{ $name }}-distill
    {{- end }}
    serviceAccountName: {{ include "bistil.serviceAccountName" . }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    {{- with .Values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- toYaml .Values.podSecurityContext | nindent 6 }}
    containers:
      - name: distill
        image: {{ include "bistil.image" (list $distill.image .Chart.AppVersion "") }}
        imagePullPolicy: {{ $distill.image.pullPolicy }}
        securityContext:
          {{- toYaml .Values.securityContext | nindent 10 }}
        workingDir: /srv # where the image has the embedded teacher
        command:
          - /bin/sh
          - -euc
          - |
            group=$((JOB_COMPLETION_INDEX / {{ $nodes }})) rank=$((JOB_COMPLETION_INDEX % {{ $nodes }}))
            language=$(echo "$LANGUAGES" | cut -d ' ' -f "$((group + 1))")
            store={{ ternary "/store" "/work/store/$language" (empty $url) }}
            {{- $launcher := "python" }}
            {{- if gt $nodes 1 }}
            {{- $launcher = printf "accelerate launch --num_machines %d --machine_rank $rank --main_process_ip %s-$((group * %d)).%s-distill --main_process_port 29500 --num_processes %d" $nodes $job $nodes $name (mul $nodes $gpus) }}
            {{- else if gt $gpus 1 }}
            {{- $launcher = printf "accelerate launch --num_processes %d" $gpus }}
            {{- end }}
            {{ $launcher }} -m distill build --tgt "$language" --store "$store" "$@"
            {{- if $url }}
            [ "$rank" != 0 ] || python -m distill upload "$store" {{ $url | squote }}
            {{- end }}
          - distill
        args:
          - --src={{ $distill.source }}
          - --preset={{ $distill.preset }}
          {{- with $distill.method }}
          - --method={{ . }}
          {{- end }}
          - --data=/data
          - --out=/work/runs
          {{- with $distill.tasks }}
          - --tasks={{ join "," . }}
          {{- end }}
          {{- with $distill.teacher }}
          - --teacher={{ . }}
          {{- end }}
          {{- range $key, $value := $distill.settings }}
          - {{ printf "%s=%s" $key (include "bistil.setting" $value) | quote }}
          {{- end }}
        env:
          {{- $hub := or $distill.hub (hasPrefix "hf://" $url) }}
          {{- $variables := dict "LANGUAGES" (join " " $distill.languages) "HF_HOME" "/work/huggingface" "HF_HUB_OFFLINE" (ternary "0" "1" $hub) }}
          {{- include "bistil.variables" (mergeOverwrite $variables .Values.env) | nindent 10 }}
        {{- with .Values.modelStore.existingSecret }}
        envFrom:
          - secretRef:
              name: {{ . }}
        {{- end }}
        resources:
          {{- $resources := deepCopy $distill.resources }}
          {{- if $gpus }}
          {{- $limits := merge (dict .Values.gpu.resource $gpus) (default dict $resources.limits) }}
          {{- $_ := set $resources "limits" $limits }}
          {{- end }}
          {{- toYaml $resources | nindent 10 }}
        volumeMounts:
          - name: tmp
            mountPath: /tmp
          - name: data
            mountPath: /data
            readOnly: true
          - name: work
            mountPath: /work
          {{- if $claim }}
          - name: store
            mountPath: /store
          {{- end }}
          {{- if gt $gpus 1 }}
          - name: shm
            mountPath: /dev/shm
          {{- end }}
    volumes:
      - name: tmp
        emptyDir: {}
      - name: data
        persistentVolumeClaim:
          claimName: {{ $distill.dataClaim }}
          readOnly: true
      - name: work
        persistentVolumeClaim:
          claimName: {{ default (printf "%s-work" $name) $distill.workClaim }}
      {{- if $claim }}
      - name: store
        persistentVolumeClaim:
          claimName: {{ $claim }}
      {{- end }}
      {{- if gt $gpus 1 }}
      - name: shm # the processes of one node talk through it
        emptyDir:
          medium: Memory
      {{- end }}
    {{- if and $gpus .Values.runtimeClassName }}
    runtimeClassName: {{ .Values.runtimeClassName }}
    {{- end }}
    {{- with $distill.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $distill.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- end -}}
