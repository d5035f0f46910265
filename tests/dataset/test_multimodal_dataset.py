"""`MultiModalDataset`: files, the default collate, and a subclass with the Trainer, on a tiny model with a real processor."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from swift.core.errors import DatasetError
from swift.dataset import MultiModalDataset
from tests.dataset.helpers import write_jsonl

ROWS = [{'image': f'{i}.png', 'conversations': f'<image> digit {i}' + ' is' * i} for i in range(4)]


@pytest.mark.parametrize('kind', ['json', 'jsonl', 'csv', 'parquet'])
def test_rows_of_every_kind_of_file(tmp_path, kind):
    path = tmp_path / f'rows.{kind}'
    if kind == 'json':
        path.write_text(json.dumps(ROWS))
    elif kind == 'jsonl':
        write_jsonl(path, ROWS)
    elif kind == 'parquet':
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        with open(path, 'w', newline='') as file:
            writer = csv.DictWriter(file, ['image', 'conversations'])
            writer.writeheader()
            writer.writerows(ROWS)
    data = MultiModalDataset(str(path))
    assert data.data == ROWS == MultiModalDataset().load_data(path) and len(data) == 4 and data[3] == ROWS[3]


def test_a_file_that_is_missing():
    with pytest.raises(DatasetError, match=r'gone\.jsonl: no such file'):
        MultiModalDataset().load_data('gone.jsonl')


def item(length, **more):
    return {'input_ids': torch.arange(1, length + 1), **more}


def test_texts_are_padded():
    made = MultiModalDataset().collate_fn([item(2), item(3)])
    assert made['input_ids'].tolist() == [[1, 2, 0], [1, 2, 3]] and made['attention_mask'].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert made['labels'].tolist() == [[1, 2, -100], [1, 2, 3]]
    processor = type('Processor', (), {'tokenizer': type('Tokenizer', (), {'pad_token_id': 9})})
    given = [{'input_ids': [1], 'labels': [-100], 'attention_mask': [1]}, {'input_ids': [1, 2], 'labels': [-100, 2], 'attention_mask': [1, 1]}]
    made = MultiModalDataset(processor=processor).collate_fn(given)
    assert made['input_ids'].tolist() == [[1, 9], [1, 2]] and made['labels'].tolist() == [[-100, -100], [-100, 2]]


@pytest.mark.parametrize(('name', 'shapes', 'expected'), [
    ('pixel_values', [(3, 4, 4), (3, 4, 4)], (2, 3, 4, 4)), ('pixel_values', [(2, 3, 4, 4), (1, 3, 4, 4)], (3, 3, 4, 4)),
    ('pixel_values', [(16, 24), (4, 24)], (20, 24)), ('image_grid_thw', [(3,), (3,)], (2, 3)), ('image_grid_thw', [(2, 3), (1, 3)], (3, 3)),
    ('input_features', [(8, 30), (8, 30)], (2, 8, 30)), ('score', [(), ()], (2,)),
])  # fmt: skip
def test_media_follow_each_other(name, shapes, expected):
    made = MultiModalDataset().collate_fn([item(5, **{name: torch.ones(shape)}) for shape in shapes])
    assert tuple(made[name].shape) == expected


def test_other_values_are_lists_and_uneven_media_are_named():
    made = MultiModalDataset().collate_fn([{'prompt': 'a', 'steps': ['x'], 'label': 1}, {'prompt': 'b', 'steps': [], 'label': 0}])
    assert made['prompt'] == ['a', 'b'] and made['steps'] == [['x'], []] and made['label'].tolist() == [1, 0]
    with pytest.raises(DatasetError, match=r'pixel_values of one batch has the shapes \(3, 4, 4\), \(3, 5, 4\); bring them to one size'):
        MultiModalDataset().collate_fn([item(1, pixel_values=torch.ones(3, 4, 4)), item(1, pixel_values=torch.ones(3, 5, 4))])


@pytest.fixture
def tiny():
    """A llava of 20,000 weights with its processor, made from nothing."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = ['<pad>', '<unk>', '<image>', 'digit', 'is', *map(str, range(10))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token='<unk>'))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token='<pad>', unk_token='<unk>', additional_special_tokens=['<image>'])
    size = {'height': 8, 'width': 8}
    images = CLIPImageProcessorPil(size=size, crop_size=size)
    processor = LlavaProcessor(images, tokenizer, patch_size=4, vision_feature_select_strategy='default', num_additional_image_tokens=1)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4),
        text_config=LlamaConfig(vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2),
        image_token_index=2, vision_feature_layer=-1,
    ))  # fmt: skip
    return model, processor


class ImageTextDataset(MultiModalDataset):
    """As a user writes it."""

    def __init__(self, data_path, image_root, processor, max_length=2048):
        super().__init__()
        self.data = self.load_data(data_path)
        self.image_root = image_root
        self.processor = processor
        self.max_length = max_length

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        from PIL import Image

        row = self.data[index]
        image = Image.open(f'{self.image_root}/{row["image"]}').convert('RGB')
        inputs = self.processor(
            text=row['conversations'], images=image, return_tensors='pt', padding=True, truncation=True, max_length=self.max_length
        )
        return {name: value.squeeze(0) for name, value in inputs.items()}


class OwnCollate(ImageTextDataset):
    def collate_fn(self, batch):
        pad = torch.nn.utils.rnn.pad_sequence
        ids = pad([b['input_ids'] for b in batch], batch_first=True, padding_value=self.processor.tokenizer.pad_token_id)
        mask = pad([b['attention_mask'] for b in batch], batch_first=True, padding_value=0)
        pixels = torch.stack([b['pixel_values'] for b in batch])
        return {'input_ids': ids, 'attention_mask': mask, 'pixel_values': pixels, 'labels': ids.clone()}


@pytest.mark.parametrize('kind', [ImageTextDataset, OwnCollate])
def test_a_subclass_trains_with_the_trainer(tiny, tmp_path, monkeypatch, kind):
    from PIL import Image

    from swift import Trainer

    model, processor = tiny
    for i in range(4):
        Image.new('L', (8, 8), 60 * i).save(tmp_path / f'{i}.png')
    dataset = kind(write_jsonl(tmp_path / 'rows.jsonl', ROWS), str(tmp_path), processor)
    batch = dataset.collate_fn([dataset[0], dataset[3]])
    assert batch['pixel_values'].shape == (2, 3, 8, 8) and batch['input_ids'].shape == (2, 4 + 2 + 3)
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(model=model, train_dataset=dataset, data_collator=dataset.collate_fn)
    trainer.args.max_steps = 2
    before = [p.detach().clone() for p in model.model.vision_tower.parameters()]
    assert trainer.train().global_step == 2
    assert any(not torch.equal(old, new) for old, new in zip(before, model.model.vision_tower.parameters(), strict=True))
