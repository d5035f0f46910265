# A model learns to hear: which of twelve notes is this? Sounds it was never given are asked about at the end, and the same sounds
# with their samples in random order, of which nobody can tell the note.
python recipes/tiny_audio/make.py --out output/tiny_audio
python recipes/tiny_audio/data.py --out output/tones

swift sft \
    --model output/tiny_audio \
    --dataset output/tones/train.jsonl \
    --tuner_type full \
    --freeze_vit false \
    --freeze_aligner false \
    --per_device_train_batch_size 8 \
    --learning_rate 1e-3 \
    --warmup_ratio 0.05 \
    --num_train_epochs 5 \
    --logging_steps 50 \
    --save_strategy epoch \
    --save_total_limit 1 \
    --add_version false \
    --output_dir output/audio

swift infer \
    --model output/audio \
    --val_dataset output/tones/heldout.jsonl \
    --max_batch_size 64 \
    --max_new_tokens 8 \
    --temperature 0 \
    --metric acc

swift infer \
    --model output/audio \
    --val_dataset output/tones/heldout_control.jsonl \
    --max_batch_size 64 \
    --max_new_tokens 8 \
    --temperature 0 \
    --metric acc
