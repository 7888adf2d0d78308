"""Chats and pairs as ids: what is learned, and the same ids as the saved template gives."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit.corpus import Message, Piece
from gpt2kit.tokens import Tokenizer, render_chat, train_tokenizer
from gpt2kit.tokens.chat import join_segments, piece_segments

CHAT = (
    Message("system", "You are brief. "),
    Message("user", " Hello!\nHow are you?"),
    Message("assistant", "Fine. :)"),
    Message("tool", "42"),
    Message("assistant", "   "),
    Message("user", "Bye!"),
    Message("assistant", "Bye."),
)
MESSAGES = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(["system", "user", "assistant"]),
        content=st.text(st.characters(codec="utf-8", exclude_characters="\x1c\x1d\x1e\x1f\x85"), max_size=12),
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["User: Hello!\nAssistant: Hello, you. Assistant: yes\n\n"] * 4, vocab_size=300)


@pytest.fixture(scope="module")
def oracle(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> object:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return AutoTokenizer.from_pretrained(folder)


def stored(piece: Piece, tokenizer: Tokenizer, *, separator: str = "\n") -> tuple[str, str]:
    """What a piece is stored as, and what of it has a loss."""
    segments = piece_segments(piece, completion_separator=separator)
    ids, mask = join_segments(segments, [tokenizer.encode(segment.text) for segment in segments], tokenizer.end_of_text)
    learned = [identifier for identifier, has_loss in zip(ids, mask, strict=True) if has_loss]
    return tokenizer.decode(ids), tokenizer.decode(learned)


def test_how_a_chat_reads(tokenizer: Tokenizer) -> None:
    ids, mask = render_chat(CHAT, tokenizer)
    assert tokenizer.decode(ids) == (
        "You are brief.\n\nUser: Hello!\nHow are you?\nAssistant: Fine. :)<|endoftext|>\n"
        "Tool: 42\nAssistant: <|endoftext|>\nUser: Bye!\nAssistant: Bye.<|endoftext|>\n"
    )
    learned = [identifier for identifier, has_loss in zip(ids, mask, strict=True) if has_loss]
    assert tokenizer.decode(learned) == " Fine. :)<|endoftext|> <|endoftext|> Bye.<|endoftext|>"


def test_a_prompt_is_the_beginning_of_what_was_learned(tokenizer: Tokenizer) -> None:
    whole, _ = render_chat(CHAT, tokenizer)
    for turns in (2, 6):
        prompt, mask = render_chat(CHAT[:turns], tokenizer, add_generation_prompt=True)
        assert prompt == whole[: len(prompt)]
        assert tokenizer.decode(prompt).endswith("\nAssistant:")
        assert turns != 2 or not any(mask)


def test_literal_end_of_text_in_a_message_is_text(tokenizer: Tokenizer) -> None:
    ids, mask = render_chat([Message("user", "<|endoftext|>"), Message("assistant", "a")], tokenizer)
    assert ids.count(tokenizer.end_of_text) == 1
    assert len(ids) == len(mask)


@settings(max_examples=60)
@given(messages=MESSAGES, add_generation_prompt=st.booleans())
def test_the_saved_template_gives_the_same_ids(
    tokenizer: Tokenizer, oracle: object, messages: list[Message], add_generation_prompt: bool
) -> None:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    text = oracle.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)  # type: ignore[attr-defined]
    ids, mask = render_chat(messages, tokenizer, add_generation_prompt=add_generation_prompt)
    assert tokenizer.decode(ids) == text
    assert ids == oracle(text).input_ids  # type: ignore[operator]
    assert len(mask) == len(ids)


@pytest.mark.corpora
def test_the_saved_template_gives_the_same_ids_with_gpt2s_tokenizer(corpora: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    gpt2 = Tokenizer.from_folder(corpora / "tokenizer")
    gpt2.save(tmp_path)
    turns = [{"role": message.role, "content": message.content} for message in CHAT]
    oracle = AutoTokenizer.from_pretrained(tmp_path)
    assert oracle.apply_chat_template(turns, return_dict=False) == render_chat(CHAT, gpt2)[0]


def test_a_stored_chat_ends_with_its_last_answer(tokenizer: Tokenizer) -> None:
    text, learned = stored(
        Piece(kind="chat", source="s", place="", messages=CHAT[1:3], document=0, section=0, continues=False), tokenizer
    )
    assert text == "User: Hello!\nHow are you?\nAssistant: Fine. :)<|endoftext|>"
    assert learned == " Fine. :)<|endoftext|>"


def test_a_stored_chat_without_a_last_answer_ends_without_loss(tokenizer: Tokenizer) -> None:
    text, learned = stored(
        Piece(kind="chat", source="s", place="", messages=CHAT[1:4], document=0, section=0, continues=False), tokenizer
    )
    assert text.endswith("Assistant: Fine. :)<|endoftext|>\nTool: 42\n<|endoftext|>")
    assert learned == " Fine. :)<|endoftext|>"


def test_a_stored_pair_learns_the_completion(tokenizer: Tokenizer) -> None:
    pair = Piece(
        kind="completion",
        source="s",
        place="",
        prompt="Q<|endoftext|>",
        completion="A",
        document=0,
        section=0,
        continues=False,
    )
    assert stored(pair, tokenizer, separator=" => ") == ("Q<|endoftext|> => A<|endoftext|>", "A<|endoftext|>")
    segments = piece_segments(pair, completion_separator="\n")
    ids, _ = join_segments(segments, [tokenizer.encode(segment.text) for segment in segments], tokenizer.end_of_text)
    assert ids[: len(ids) - 2] == tokenizer.encode("Q<|endoftext|>\n"), "as it will be asked"
