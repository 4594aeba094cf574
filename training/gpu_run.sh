#!/bin/sh
# The language model's run on a machine with a GPU and no network, in one command:
#     training/gpu_run.sh CORPUS RUN OUT [minutes]
# CORPUS has codes/ (about 0.8 MB an hour of speech: bring that, not the speech) and sounds.json, which training leaves
# there on the machine that made the corpus. RUN keeps the state, so that a second call goes on. OUT receives the losses,
# the alignment head's error and the checkpoint in pieces of 15 MB (cat OUT/checkpoint.tar.gz.* | tar -xzf -).
# Needs torch, transformers, safetensors, numpy, rich, msgspec, sentencex, soundfile, soxr and websockets.
set -eu
corpus=$1 run=$2 out=$3 minutes=${4:-25}
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$here:$here/protocol:$here/kernels:$here/clients/python${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$run" "$out"

python -m training.train_lm --corpus "$corpus" --run "$run" --minutes "$minutes" \
    --sequences "${SEQUENCES:-72}" --rows "${ROWS:-1024}" --books "${BOOKS:-8}" --learning-rate "${LEARNING_RATE:-3e-3}" \
    --questions "${QUESTIONS:-4}"
python -m training.export --run "$run" --out "$run/checkpoint"
python -m training.alignment --corpus "$corpus" --model "$run/checkpoint" --dialogues 20 | tee "$out/alignment.json"
cp "$run/log.jsonl" "$out/log.jsonl"
tar -C "$run" -czf - checkpoint | split -b 15M - "$out/checkpoint.tar.gz."
