# A model learns to see motion: which way does the square move? Clips it was never shown are asked about at the end, and the same
# clips with their frames in random order, which show along which axis it moves, but not which way (needs PyAV: pip install av).
python recipes/tiny_vision/make.py --kind video --out output/tiny_video
python recipes/tiny_vision/data.py --kind motion --out output/motion

swift sft \
    --model output/tiny_video \
    --dataset output/motion/train.jsonl \
    --tuner_type full \
    --freeze_vit false \
    --freeze_aligner false \
    --per_device_train_batch_size 8 \
    --learning_rate 1e-3 \
    --warmup_ratio 0.05 \
    --num_train_epochs 4 \
    --logging_steps 50 \
    --save_strategy epoch \
    --save_total_limit 1 \
    --add_version false \
    --output_dir output/video

swift infer \
    --model output/video \
    --val_dataset output/motion/heldout.jsonl \
    --max_batch_size 64 \
    --max_new_tokens 8 \
    --temperature 0 \
    --metric acc

swift infer \
    --model output/video \
    --val_dataset output/motion/heldout_order.jsonl \
    --max_batch_size 64 \
    --max_new_tokens 8 \
    --temperature 0 \
    --metric acc
