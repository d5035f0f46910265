swift sft \
    --model tiny \
    --task_type embedding \
    --dataset examples/data/embedding.jsonl \
    --per_device_train_batch_size 16 \
    --learning_rate 1e-3 \
    --max_steps 20 \
    --add_version false \
    --output_dir output/infer_embeddings
swift infer \
    --adapters output/infer_embeddings \
    --val_dataset examples/data/embedding_heldout.jsonl \
    --metric acc
echo 'What is 3 plus 4? ||| 3 + 4 = 7 ||| 9 + 9 = 18' | swift infer --adapters output/infer_embeddings
