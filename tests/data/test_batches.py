import numpy as np
import pytest
import torch

from recipes.data.batches import layout_of, pack, pad
from recipes.data.token_files import TokenSplit, TokenWriter


@pytest.fixture
def split(tmp_path):
    def flat(*rows):
        return np.concatenate(rows).astype(np.int32), np.concatenate([[0], np.cumsum([len(row) for row in rows])])

    with TokenWriter(tmp_path / "a.arrow") as writer:
        writer.write(flat([5, 6, 1], [7, 1]), flat([8, 1], [9, 9, 9, 1]), np.zeros(2), np.arange(2))
    return TokenSplit(tmp_path / "a.arrow", ["a"])


def test_tensors_of_two_examples(split):
    batch = pad(split, np.array([0, 1]), pad_id=0)
    assert batch.input_ids.tolist() == [[5, 6, 1], [7, 1, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.labels.tolist() == [[8, 1, -100, -100], [9, 9, 9, 1]]
    assert batch.decoder_input_ids.tolist() == [[0, 8, 1, 0], [0, 9, 9, 9]]
    assert {value.dtype for value in vars(batch).values()} == {torch.int64}
    assert set(batch.inputs()) == {"input_ids", "attention_mask", "decoder_input_ids", "use_cache"}


def test_two_examples_one_after_the_other(split):
    batch = pack(split, np.array([1, 0]), pad_id=0)
    assert batch.input_ids.tolist() == [7, 1, 5, 6, 1]
    assert batch.labels.tolist() == [[9, 9, 9, 1, 8, 1]]
    # Every example begins with the padding id, whatever stood before it.
    assert batch.decoder_input_ids.tolist() == [0, 9, 9, 9, 0, 8]
    [source], [target] = batch.layout.source, batch.layout.target
    assert source.index.tolist() == [[0, 1, 0], [2, 3, 4]]
    assert source.mask.tolist() == [[True, True, False], [True, True, True]]
    assert target.index.tolist() == [[0, 1, 2, 3], [4, 5, 0, 0]]
    assert batch.layout.source_back.tolist() == [0, 1, 3, 4, 5]
    assert batch.layout.target_back.tolist() == [0, 1, 2, 3, 4, 5]


def test_examples_of_like_length_are_a_group():
    layout = layout_of(np.array([100, 10, 30, 51, 9]), np.array([20, 90, 8, 3, 50]))
    # By the longer side: 100, 90 and 51 are over half of 100, 50 and 30 over a quarter.
    assert [len(places.index) for places in layout.source] == [3, 2]
    assert [places.index.shape[1] for places in layout.source] == [100, 30]
    assert [places.index.shape[1] for places in layout.target] == [90, 50]
    assert layout.source[1].index[1, :9].tolist() == list(range(191, 200))
    # The second group's grid comes after 3 rows of 100.
    assert layout.source_back[191:].tolist() == list(range(300 + 30, 300 + 39))


def test_examples_of_one_length_need_no_looking_up():
    layout = layout_of(np.full(3, 7), np.array([2, 2, 3]))
    assert [places.whole for places in layout.source] == [True]
    assert layout.source[0].mask is None
    assert [places.whole for places in layout.target] == [False]


def test_every_token_is_found_again():
    draw = np.random.default_rng(0)
    for _ in range(50):
        lengths = [draw.integers(1, 200, draw.integers(1, 30)) for _ in range(1)] * 2
        lengths[1] = draw.permutation(lengths[1])
        layout = layout_of(*lengths)
        for places, back, side in zip(
            (layout.source, layout.target), (layout.source_back, layout.target_back), lengths, strict=True
        ):
            tokens = torch.arange(int(side.sum()))
            grids = torch.cat([tokens[group.index].flatten() for group in places])
            assert torch.equal(grids[back], tokens)
            assert sum(group.index.shape[0] for group in places) == len(side)


def test_padding_is_no_wider_than_needed(split):
    batch = pad(split, np.array([1]), pad_id=3)
    assert batch.input_ids.tolist() == [[7, 1]]
    assert batch.decoder_input_ids.tolist() == [[3, 9, 9, 9]]


def test_decoder_inputs_are_those_of_t5(split):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0, pad_token_id=0
    )
    model = T5ForConditionalGeneration(config).eval()
    batch = pad(split, np.array([0, 1]), pad_id=0)
    # T5 puts the padding id where labels are -100; those positions count nothing.
    theirs = model._shift_right(batch.labels)
    counted = batch.labels != -100
    assert torch.equal(theirs[counted], batch.decoder_input_ids[counted])


@pytest.mark.parametrize("made", [pack, pad])
def test_an_empty_micro_batch_adds_nothing_to_loss_and_gradient(split, made):
    from recipes.config import ModelBlock
    from recipes.training.model import build_model
    from recipes.training.update import summed_loss

    shape = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    model = build_model(ModelBlock(shape=shape), 16, seed=0)
    loss = summed_loss(model, made(split, np.array([], int), pad_id=0))
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


@pytest.mark.parametrize("made", [pack, pad])
def test_to_a_device(split, made):
    batch = made(split, np.array([0]), pad_id=0)
    assert batch.to("cpu").labels.tolist() == batch.labels.tolist()
    assert batch.to("meta").input_ids.device.type == "meta"
    if made is pack:
        assert batch.to("meta").layout.target[0].index.device.type == "meta"
