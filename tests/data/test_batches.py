import numpy as np
import pytest
import torch

from recipes.data.batches import collate
from recipes.data.token_files import TokenSplit, TokenWriter


@pytest.fixture
def split(tmp_path):
    def flat(*rows):
        return np.concatenate(rows).astype(np.int32), np.concatenate([[0], np.cumsum([len(row) for row in rows])])

    with TokenWriter(tmp_path / "a.arrow") as writer:
        writer.write(flat([5, 6, 1], [7, 1]), flat([8, 1], [9, 9, 9, 1]), np.zeros(2), np.arange(2))
    return TokenSplit(tmp_path / "a.arrow", ["a"])


def test_tensors_of_two_examples(split):
    batch = collate(split, np.array([0, 1]), pad_id=0)
    assert batch.input_ids.tolist() == [[5, 6, 1], [7, 1, 0]]
    assert batch.source_examples.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.target_examples.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch.labels.tolist() == [[8, 1, -100, -100], [9, 9, 9, 1]]
    assert batch.decoder_input_ids.tolist() == [[0, 8, 1, 0], [0, 9, 9, 9]]
    assert not batch.packed
    assert {value.dtype for value in vars(batch).values() if isinstance(value, torch.Tensor)} == {torch.int64}


def test_a_row_of_two_examples(split):
    batch = collate(split, [np.array([1, 0]), np.array([0])], pad_id=0)
    assert batch.packed
    assert batch.input_ids.tolist() == [[7, 1, 5, 6, 1], [5, 6, 1, 0, 0]]
    assert batch.source_examples.tolist() == [[1, 1, 2, 2, 2], [1, 1, 1, 0, 0]]
    assert batch.labels.tolist() == [[9, 9, 9, 1, 8, 1], [8, 1, -100, -100, -100, -100]]
    assert batch.target_examples.tolist() == [[1, 1, 1, 1, 2, 2], [1, 1, 0, 0, 0, 0]]
    # Every example begins with the padding id, whatever stood before it.
    assert batch.decoder_input_ids.tolist() == [[0, 9, 9, 9, 0, 8], [0, 8, 1, 0, 0, 0]]


def test_padding_is_no_wider_than_needed(split):
    batch = collate(split, np.array([1]), pad_id=3)
    assert batch.input_ids.tolist() == [[7, 1]]
    assert batch.decoder_input_ids.tolist() == [[3, 9, 9, 9]]


def test_decoder_inputs_are_those_of_t5(split):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0, pad_token_id=0
    )
    model = T5ForConditionalGeneration(config).eval()
    batch = collate(split, np.array([0, 1]), pad_id=0)
    # T5 puts the padding id where labels are -100; those positions count nothing.
    theirs = model._shift_right(batch.labels)
    counted = batch.labels != -100
    assert torch.equal(theirs[counted], batch.decoder_input_ids[counted])


def test_an_empty_micro_batch_adds_nothing_to_loss_and_gradient(split):
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    batch = collate(split, np.array([], int), pad_id=0)
    logits = model(
        input_ids=batch.input_ids, attention_mask=batch.source_examples, decoder_input_ids=batch.decoder_input_ids
    ).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


def test_to_a_device(split):
    batch = collate(split, np.array([0]), pad_id=0)
    assert batch.to("cpu").labels.tolist() == batch.labels.tolist()
    assert batch.to("meta").input_ids.device.type == "meta"
