# Questions, summaries and translations in one training; each task has its weight and its own loss in the log.
swift sft \
    --model tiny \
    --dataset multi_task \
    --val_dataset multi_task_heldout \
    --dataset_dir examples/data \
    --task_type multi_task \
    --task_weights 1.0,0.8,0.8 \
    --routing_strategy fixed \
    --max_steps 100 \
    --per_device_train_batch_size 8 \
    --learning_rate 1e-3 \
    --logging_steps 20 \
    --add_version false \
    --output_dir output/multi_task
