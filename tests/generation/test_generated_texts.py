"""Whole texts: against `transformers`, against a naive loop, and in any batch."""

import copy
import random
import re

import pytest
import torch

from gpt2kit.errors import ModelError, UsageError
from gpt2kit.generation import GenerateSettings, LanguageModel, decoding, generate, load, stream
from gpt2kit.generation.sampling import Cutoffs, choose
from gpt2kit.runtime import derive_seed

PROMPTS = ["The king", "The old fox ran to the river, and", "fox", "", "größer 🦊"]


def settings(**values):
    return GenerateSettings(**({"max_new_tokens": 20, "seed": 0, "logprobs": True} | values))


def prompt_ids(model, prompt):
    return model.tokenizer.encode(prompt) or [model.tokenizer.end_of_text]


@torch.inference_mode()
def naive(model, prompt, num_tokens, *, pick, keep=0.5):
    """The oracle: no cache, no batch; the window is cut to its last share when it is full."""
    window, ids, logprob = prompt_ids(model, prompt), [], 0.0
    n_positions = model.model.config.n_positions
    while len(ids) < num_tokens and (not ids or ids[-1] != model.tokenizer.end_of_text):
        logits_1V = model.model.logits(model.model(torch.tensor([window]))[:, -1])
        ids.append(pick(logits_1V, len(ids)))
        logprob += logits_1V.log_softmax(-1)[0, ids[-1]].item()
        window.append(ids[-1])
        if len(window) > n_positions:
            window = window[-int(n_positions * keep) :]
    return tuple(ids), logprob


def with_head(model, head_VD):
    """The model with another head."""
    network = copy.deepcopy(model.model)
    network.lm_head.weight = torch.nn.Parameter(head_VD)
    return LanguageModel(network, model.tokenizer, model.folder)


def greedy_pick(logits_1V, position):
    return int(logits_1V.argmax())


# -- parity ------------------------------------------


def peer_generate(peer, model, prompt, **values):
    ids_1T = torch.tensor([prompt_ids(model, prompt)])
    found = peer.generate(
        ids_1T, attention_mask=torch.ones_like(ids_1T), pad_token_id=0, do_sample=False, max_new_tokens=20, **values
    )
    return [tuple(row[ids_1T.size(1) :].tolist()) for row in found]


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}])
def test_greedy_search_is_that_of_transformers(model, peer, options):
    for sample in generate(model, PROMPTS, settings(temperature=0, **options)):
        assert [sample.ids] == peer_generate(peer, model, sample.prompt, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 2},
        {"num_beams": 4, "nsamples": 4},
        {"num_beams": 3, "nsamples": 2, "length_penalty": -1.0},
        {"num_beams": 4, "early_stopping": True, "length_penalty": 2.0},
        {"num_beams": 3, "no_repeat_ngram_size": 2},
    ],
)
@pytest.mark.parametrize("favour_end", [0.0, 8.0])
def test_beam_search_is_that_of_transformers(model, peer, options, favour_end):
    # With a likelier end-of-text, beams end at different times and the length penalty matters.
    end = model.tokenizer.end_of_text
    head = model.model.lm_head.weight.detach().clone()
    head[end] *= 1 + favour_end
    model, peer = with_head(model, head), copy.deepcopy(peer)
    peer.lm_head.weight = torch.nn.Parameter(head)
    peer_options = dict(options)
    peer_options["num_return_sequences"] = peer_options.pop("nsamples", 1)
    samples = generate(model, PROMPTS, settings(**options))
    for index, prompt in enumerate(PROMPTS):
        own = [sample for sample in samples if sample.prompt_index == index]
        expected = peer_generate(peer, model, prompt, **peer_options)
        assert len(own) == options.get("nsamples", 1)
        for sample, ids in zip(own, expected, strict=True):
            assert sample.ids == ids[: len(sample.ids)]
            assert set(ids[len(sample.ids) :]) <= {0, end}  # padding
        assert [sample.score for sample in own] == sorted((sample.score for sample in own), reverse=True)
    assert any(sample.finish_reason == "end_of_text" for sample in samples) == bool(favour_end)


def test_a_score_is_the_logprob_over_the_length(model):
    for sample in generate(model, PROMPTS, settings(num_beams=3, length_penalty=0.7)):
        assert sample.score == pytest.approx(sample.logprob / len(sample.ids) ** 0.7, rel=1e-5)


@torch.inference_mode()
def naive_contrastive(model, prompt, num_tokens, *, k, alpha):
    window, ids = prompt_ids(model, prompt), []
    while len(ids) < num_tokens and (not ids or ids[-1] != model.tokenizer.end_of_text):
        hidden_TD = model.model(torch.tensor([window]))[0]
        best = model.model.logits(hidden_TD[-1]).softmax(-1).topk(k)
        scores = []
        for probability, identifier in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            candidate_D = model.model(torch.tensor([[*window, identifier]]))[0, -1]
            likeness = torch.cosine_similarity(candidate_D[None], hidden_TD).max().item()
            scores.append(((1 - alpha) * probability - alpha * likeness, identifier))
        ids.append(max(scores)[1])
        window.append(ids[-1])
    return tuple(ids)


@pytest.mark.parametrize("alpha", [0.3, 0.6, 1.0])
def test_contrastive_search_is_the_papers_formula(model, alpha):
    samples = generate(model, PROMPTS, settings(penalty_alpha=alpha, top_k=4))
    assert [s.ids for s in samples] == [naive_contrastive(model, p, 20, k=4, alpha=alpha) for p in PROMPTS]
    assert [s.ids for s in samples] != [s.ids for s in generate(model, PROMPTS, settings(temperature=0))]


# -- cache, padding, long texts ------------------------------------------


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.95])
def test_long_texts_are_those_of_the_naive_loop(model, keep):
    options = settings(temperature=0, max_new_tokens=150, min_new_tokens=150, window_keep=keep)
    end = model.tokenizer.end_of_text

    def pick(logits_1V, position):
        logits_1V = logits_1V.clone()
        logits_1V[0, end] = -torch.inf
        return int(logits_1V.argmax())

    for sample in generate(model, PROMPTS, options):
        ids, logprob = naive(model, sample.prompt, 150, pick=pick, keep=keep)
        assert sample.ids == ids
        assert sample.logprob == pytest.approx(logprob, abs=1e-3)


def test_drawn_texts_are_those_of_the_naive_loop(model):
    cutoffs = Cutoffs(0.8, 0, 0.9)
    for sample in generate(model, PROMPTS, settings(max_new_tokens=100, seed=7)):
        key = derive_seed(7, "generate", sample.prompt, 0)

        def pick(logits_1V, position, key=key):
            return int(choose(logits_1V, cutoffs, keys=[derive_seed(key, position)]).ids_B[0])

        ids, logprob = naive(model, sample.prompt, 100, pick=pick)
        assert sample.ids == ids
        assert sample.logprob == pytest.approx(logprob, abs=1e-3)
        assert sample.seed == 7


@pytest.mark.parametrize("method", [{"num_beams": 3}, {"penalty_alpha": 0.5, "top_k": 4}])
def test_searches_go_on_beyond_the_context(model, method):
    samples = generate(model, PROMPTS, settings(max_new_tokens=120, min_new_tokens=120, **method))
    assert {len(sample.ids) for sample in samples} == {120}
    again = generate(model, list(reversed(PROMPTS)), settings(max_new_tokens=120, min_new_tokens=120, **method))
    assert [s.ids for s in samples] == [s.ids for s in reversed(again)]


def test_a_prompt_longer_than_the_context_keeps_its_last_tokens_and_says_so(model, capsys):
    prompt = "The king saw the old fox. " * 800
    num_tokens = len(model.tokenizer.encode(prompt))
    assert num_tokens > 5000
    (sample,) = generate(model, [prompt], settings(temperature=0))
    assert (
        f"prompt 1 has {num_tokens:,} tokens, and the model's context is 48: only the last 48"
        in capsys.readouterr().err
    )
    assert (sample.num_prompt_tokens, sample.num_prompt_tokens_dropped) == (num_tokens, num_tokens - 48)
    tail = model.tokenizer.encode(prompt)[-48:]
    expected = LanguageModel(model.model, model.tokenizer, model.folder)
    with torch.inference_mode():
        first = int(expected.model.logits(expected.model(torch.tensor([tail]))[:, -1]).argmax())
    assert sample.ids[0] == first


@pytest.mark.parametrize("n_positions", [1, 2, 3])
def test_the_smallest_contexts_work(tokenizer, make_model, tmp_path, n_positions):
    model = LanguageModel(make_model(tokenizer, n_positions=n_positions), tokenizer, tmp_path)
    methods = [{}, {"temperature": 0}, {"num_beams": 2}]
    if n_positions > 1:  # contrastive search compares a candidate with what stands before it
        methods.append({"penalty_alpha": 0.5, "top_k": 2})
    for method in methods:
        for sample in generate(model, ["", "fox fox fox"], settings(max_new_tokens=9, min_new_tokens=9, **method)):
            assert len(sample.ids) == 9


# -- batches and seeds ------------------------------------------


def texts_by_prompt(samples):
    return {(sample.prompt, sample.sample_index): (sample.ids, sample.text) for sample in samples}


@pytest.mark.parametrize("method", [{}, {"temperature": 0}, {"temperature": 1.5, "top_p": 1.0}, {"typical_p": 0.8}])
def test_a_text_does_not_depend_on_its_batch(model, method):
    prompts = [*PROMPTS, "The"]
    samples_each = 2 if method.get("temperature") != 0 else 1
    for seed in (0, 5):
        expected = None
        for batch_size in (1, 5, None):
            order = list(prompts)
            random.Random(f"{seed} {batch_size}").shuffle(order)
            options = settings(seed=seed, batch_size=batch_size, nsamples=samples_each, max_new_tokens=55, **method)
            found = texts_by_prompt(generate(model, order, options))
            assert expected is None or found == expected
            expected = found


def test_near_ties_are_decided_in_the_same_way_in_any_batch(model, monkeypatch):
    """Rounding is made a thousand times coarser, as if each batch computed something else."""
    original = type(model.model).logits

    def coarse(self, hidden):
        # Scores that depend on the shape of the batch, by up to 2e-2.
        exact = original(self, hidden)
        if hidden.dim() == 2 and hidden.size(0) > 0 and not alone["now"]:
            generator = torch.Generator().manual_seed(hidden.size(0) * 1000 + alone["calls"] % 7)
            alone["calls"] += 1
            return exact + (torch.rand(exact.shape, generator=generator) - 0.5) * 4e-2
        return exact

    alone = {"now": False, "calls": 0}
    read_alone = decoding.Reader.read_alone

    def marked(self, row):
        alone["now"] = True
        return read_alone(self, row)

    choose_row = decoding._Chooser._choose

    def unmarked(self, logits_BV, rows, *, slack):
        alone["now"] = False
        return choose_row(self, logits_BV, rows, slack=slack)

    monkeypatch.setattr(type(model.model), "logits", coarse)
    monkeypatch.setattr(decoding.Reader, "read_alone", marked)
    monkeypatch.setattr(decoding._Chooser, "_choose", unmarked)
    prompts = [*PROMPTS, "The", "saw the old", "and the king followed"]

    def texts(batch_size, seed):
        options = settings(seed=seed, batch_size=batch_size, max_new_tokens=25)
        return [sample.ids for sample in generate(model, prompts, options)]

    differing = sum(texts(1, seed) != texts(8, seed) for seed in range(4))
    assert differing > 0  # the noise does matter
    monkeypatch.setattr(decoding, "SLACK_NATS", 2e-2)
    assert [texts(1, seed) for seed in range(4)] == [texts(8, seed) for seed in range(4)]


def test_samples_of_a_prompt_differ_and_do_not_depend_on_their_number(model):
    three = generate(model, ["The king"], settings(nsamples=3))
    assert len({sample.ids for sample in three}) == 3
    assert [s.ids for s in generate(model, ["The king"], settings(nsamples=2))] == [s.ids for s in three[:2]]
    assert [s.sample_index for s in three] == [0, 1, 2]


def test_a_prompt_given_twice_gets_two_texts(model):
    first, second = generate(model, ["The king", "The king"], settings())
    assert first.ids != second.ids
    assert (first.prompt_index, second.prompt_index) == (0, 1)


def test_seeds(model):
    zero, again, one = (generate(model, ["fox"], settings(seed=seed))[0] for seed in (0, 0, 1))
    assert zero == again
    assert zero.ids != one.ids
    fresh = generate(model, ["fox"], settings(seed=None))[0]
    assert fresh.seed is not None
    assert generate(model, ["fox"], settings(seed=fresh.seed))[0] == fresh
    assert generate(model, ["fox"], settings(temperature=0))[0].seed is None


def test_greedy_copies_are_counted_and_warned_of(model, capsys):
    samples = generate(model, ["fox", "The"], settings(temperature=0, nsamples=3))
    assert "the 3 samples will be the same" in capsys.readouterr().err
    assert [(s.prompt, s.sample_index) for s in samples] == [(p, i) for p in ("fox", "The") for i in range(3)]
    assert len({s.ids for s in samples}) == 2


# -- streams, ends, chats ------------------------------------------


@pytest.mark.parametrize("method", [{}, {"temperature": 0}, {"num_beams": 2}, {"penalty_alpha": 0.5, "top_k": 4}])
@pytest.mark.parametrize("stop", [(), ("a", "to the")])
def test_a_stream_is_the_text(model, method, stop):
    for prompt in PROMPTS:
        options = settings(max_new_tokens=60, stop=stop, **method)
        (sample,) = generate(model, [prompt], options)
        assert "".join(stream(model, prompt, options)) == sample.text
        assert not any(string in sample.text for string in stop)


def test_a_stop_string_stops_at_once(model):
    long = generate(model, PROMPTS, settings(max_new_tokens=60))
    for whole in long:
        letters = re.findall(r"[a-z]{2}", whole.text)
        if not letters:
            continue
        (sample,) = generate(model, [whole.prompt], settings(max_new_tokens=60, stop=[letters[0]]))
        assert sample.finish_reason == "stop"
        assert sample.text == whole.text[: whole.text.index(letters[0])]
        assert sample.ids == whole.ids[: len(sample.ids)]
        assert letters[0] not in model.tokenizer.decode(sample.ids[:-1])
    assert any(re.search(r"[a-z]{2}", whole.text) for whole in long)


def test_beams_stop_at_stop_strings(model):
    (whole,) = generate(model, ["fox"], settings(num_beams=3))
    string = whole.text[3]
    for sample in generate(model, ["fox"], settings(num_beams=3, nsamples=3, stop=[string])):
        assert string not in sample.text


def test_truncate_is_a_stop_string(model):
    (whole,) = generate(model, ["fox"], settings(max_new_tokens=40))
    string = whole.text[5]
    (cut,) = generate(model, ["fox"], settings(max_new_tokens=40, truncate=string))
    assert cut.text == whole.text[: whole.text.index(string)]


def test_min_new_tokens_and_end_of_text(model):
    head = model.model.lm_head.weight.detach().clone()
    # Twice the likeliest token's own row: end-of-text is then the likeliest wherever that one was.
    first = generate(model, ["fox"], settings(temperature=0))[0].ids[0]
    head[model.tokenizer.end_of_text] = head[first] * 2
    model = with_head(model, head)
    (sample,) = generate(model, ["fox"], settings(temperature=0))
    assert (sample.finish_reason, sample.text, sample.ids) == ("end_of_text", "", (model.tokenizer.end_of_text,))
    (sample,) = generate(model, ["fox"], settings(temperature=0, min_new_tokens=6))
    assert model.tokenizer.end_of_text not in sample.ids[:6]


def test_ids_without_text_are_never_written(tokenizer, make_model, tmp_path):
    model = LanguageModel(make_model(tokenizer, unused_ids=500), tokenizer, tmp_path)
    for sample in generate(model, PROMPTS, settings(temperature=5.0, top_p=1.0, max_new_tokens=60)):
        assert max(sample.ids) < tokenizer.vocab_size


def test_where_everything_is_forbidden_the_text_ends(model):
    options = settings(temperature=0, no_repeat_ngram_size=1, max_new_tokens=1000)
    (sample,) = generate(model, ["fox"], options)
    assert sample.finish_reason == "end_of_text"
    assert len(set(sample.ids)) == len(sample.ids) <= model.tokenizer.vocab_size


def test_a_penalised_token_comes_less_often(model):
    plain = generate(model, PROMPTS, settings(temperature=0, max_new_tokens=60))
    for options in ({"frequency_penalty": 5.0}, {"presence_penalty": 10.0}, {"repetition_penalty": 50.0}):
        samples = generate(model, PROMPTS, settings(temperature=0, max_new_tokens=60, **options))
        assert sum(len(set(s.ids)) for s in samples) > sum(len(set(s.ids)) for s in plain)


@pytest.mark.parametrize(
    "method",
    [
        {"temperature": 0, "repetition_penalty": 2.0, "frequency_penalty": 0.5},
        {"temperature": 0.5, "top_k": 5, "no_repeat_ngram_size": 2, "min_new_tokens": 20},
        {"num_beams": 3, "presence_penalty": 2.0},
        {"penalty_alpha": 0.6, "top_k": 4, "repetition_penalty": 2.0},
    ],
)
def test_a_logprob_is_that_of_the_models_own_distribution(model, method):
    for sample in generate(model, PROMPTS, settings(**method)):
        before = prompt_ids(model, sample.prompt)
        whole = torch.tensor([[*before, *sample.ids]])
        nats_1T = model.model.token_losses(whole[:, :-1], whole[:, 1:])
        assert sample.logprob == pytest.approx(-nats_1T[0, len(before) - 1 :].sum().item(), abs=1e-3)


def test_end_of_text_stands_first_for_models_that_were_trained_here(model, tmp_path):
    begun = settings(temperature=0, end_of_text_first="on")
    plain = settings(temperature=0)
    expected = generate(model, ["fox"], begun)[0]
    assert expected.ids != generate(model, ["fox"], plain)[0].ids
    assert expected.num_prompt_tokens == 1 + len(model.tokenizer.encode("fox"))
    (tmp_path / "training").mkdir()
    trained = LanguageModel(model.model, model.tokenizer, tmp_path)
    assert generate(trained, ["fox"], plain)[0].ids == expected.ids
    assert generate(trained, ["fox"], settings(temperature=0, end_of_text_first="off"))[0].ids != expected.ids


def test_an_empty_prompt_begins_from_end_of_text(model):
    (sample,) = generate(model, [""], settings(temperature=0))
    assert sample.num_prompt_tokens == 1
    assert sample.ids == naive(model, "", 20, pick=greedy_pick)[0]


def test_a_chat_is_the_rendered_turn_and_stops_before_the_next_one(model):
    options = settings(temperature=0, max_new_tokens=40)
    rendered = "Be brief.\n\nUser: Hello!\nAssistant:"
    (plain,) = generate(model, [rendered], options)
    (sample,) = generate(model, ["Hello!"], settings(temperature=0, max_new_tokens=40, chat=True, system="Be brief."))
    assert sample.prompt == "Hello!"
    assert sample.ids == plain.ids
    assert sample.text == plain.text.split("\nUser:")[0].lstrip()


def test_the_model_is_as_it_was_and_dropout_is_off(tokenizer, make_model, tmp_path):
    network = make_model(tokenizer).train()
    model = LanguageModel(network, tokenizer, tmp_path)
    first, second = (generate(model, ["fox"], settings())[0] for _ in range(2))
    assert first == second
    assert network.training
    assert network.lm_head.weight.requires_grad
    network.loss(torch.tensor([[1, 2]]), torch.tensor([[2, 3]])).backward()


# -- loading and mistakes ------------------------------------------


def test_a_loaded_model_writes_what_it_wrote_in_memory(model, model_folder):
    loaded = load(model_folder, device="cpu", precision="fp32", engine="torch")
    assert generate(loaded, PROMPTS, settings()) == generate(model, PROMPTS, settings())


def test_half_precision_writes(model_folder):
    loaded = load(model_folder, device="cpu", precision="bf16")
    assert len(generate(loaded, PROMPTS, settings(nsamples=2))) == 2 * len(PROMPTS)


def test_a_model_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"--model_dir models/gpt2_fine_tuned: there is no model yet.*gpt2kit train"):
        load("models/gpt2_fine_tuned")
    with pytest.raises(UsageError, match="no such folder"):
        load(tmp_path / "nowhere")


def test_a_folder_without_tokenizer(model, model_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    with pytest.raises(ModelError, match="without tokenizer"):
        load(tmp_path)


def test_a_tokenizer_too_large_for_the_network(model, tmp_path):
    from gpt2kit.model import GPT2, GPT2Config

    with pytest.raises(ModelError, match=r"has 3.. entries and its network 10"):
        LanguageModel(GPT2(GPT2Config(vocab_size=10, n_embd=8, n_head=2, n_layer=1)), model.tokenizer, tmp_path)


@pytest.mark.parametrize(
    "method", [{}, {"temperature": 0}, {"num_beams": 2}, {"penalty_alpha": 0.5, "top_k": 2}], ids=str
)
def test_a_model_whose_scores_are_no_numbers(model, method):
    broken = with_head(model, torch.full_like(model.model.lm_head.weight, torch.nan))
    with pytest.raises(ModelError, match="scores are not numbers"):
        generate(broken, ["fox"], settings(**method))


def test_a_temperature_near_zero_is_greedy_search(model):
    greedy = generate(model, PROMPTS, settings(temperature=0))
    for temperature in (1e-3, 1e-30, 1e-50):
        assert [s.ids for s in generate(model, PROMPTS, settings(temperature=temperature))] == [s.ids for s in greedy]


def test_prompts_that_are_no_text(model):
    with pytest.raises(UsageError, match=r"prompt 2 is not valid text \(character 4\)"):
        generate(model, ["fox", "fox\udc80"], settings())
    with pytest.raises(UsageError, match="should be a list of texts"):
        generate(model, "fox", settings())
