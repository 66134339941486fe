#!/bin/bash
# A TPU pod slice: one long video over all of its chips, then many videos, a shard on each host.
#
#   TPU=my-pod ZONE=us-east5-a WORKERS=4 bash tpu-pod.sh
set -eu
: "${TPU:?the name of the TPU}" "${ZONE:?its zone}" "${WORKERS:?its hosts}"

on() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker="$1" --command="$2"
}

# The hosts find each other; who does not come in time is named.
on all "syncos generate story.yaml --distributed --join-timeout 120 --out story.mp4"

# Hosts of many videos need not know of each other: each is told that its four chips are all.
alone="TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1"
for worker in $(seq 0 $((WORKERS - 1))); do
  on "$worker" "$alone syncos batch stories.jsonl --devices all --shard $worker/$WORKERS \
    --out gs://bucket/videos" &
done
wait
on 0 "syncos batch status gs://bucket/videos"
