"""From prompts to texts: `generate`, and `stream` for one text while it is written."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING

from gpt2kit.generation.language_model import LanguageModel
from gpt2kit.generation.plan import Plan, make_plan
from gpt2kit.generation.rules import CutoffRules
from gpt2kit.generation.sample import Sample
from gpt2kit.generation.settings import GenerateSettings
from gpt2kit.generation.writing import Job, Writing
from gpt2kit.runtime import available_main_memory_bytes, available_memory_bytes

if TYPE_CHECKING:
    from gpt2kit.generation.decoding import Penalties
    from gpt2kit.model import GPT2

_MEMORY_SHARE = 0.5  # of what is free
# More rows bring no more tokens a second.
_LARGEST_BATCH_ON_CPU, _LARGEST_BATCH_ON_GPU, _LARGEST_NATIVE_BATCH = 64, 512, 256
_BYTES_PER_ENTRY = 48  # of the vocabulary: a row's logits, and the copies that penalties, sorting and drawing make


def generate(model: LanguageModel, prompts: Sequence[str], settings: GenerateSettings) -> list[Sample]:
    """Continue each prompt `settings.nsamples` times.

    The same prompt, settings and seed give the same texts, whatever the other prompts and the batch size are (in fp32;
    see `decoding`). A prompt that occurs twice gets other texts the second time.

    Args:
        model: what to write with.
        prompts: what to continue; "" begins a text.
        settings: how. Those on files, input and output are not looked at.

    Returns:
        The samples of the first prompt, then those of the second, and so on.

    Raises:
        UsageError: a prompt is not valid text, or a setting does not fit the model.

    Example:
        >>> generate(model, ["Once upon a time"], GenerateSettings(nsamples=3, seed=0))[2].text
    """
    samples = write(model, prompts, settings, num_samples=settings.nsamples)
    return sorted(samples, key=lambda sample: (sample.prompt_index, sample.sample_index))


def stream(model: LanguageModel, prompt: str, settings: GenerateSettings) -> Iterator[str]:
    """Continue one prompt once, giving out characters as soon as they are certain.

    Joined, they are the text that `generate` gives for the same settings and seed. Beam search knows its text only at
    the end, and gives it in one piece.

    Args:
        model: what to write with.
        prompt: what to continue; "" begins a text.
        settings: how; `nsamples` is not looked at.

    Raises:
        UsageError: the prompt is not valid text, or a setting does not fit the model.
    """
    plan = make_plan(model, [prompt], settings, num_samples=1)
    return (piece for _, piece in pieces(plan) if piece)


def write(
    model: LanguageModel, prompts: Sequence[str], settings: GenerateSettings, *, num_samples: int
) -> Iterator[Sample]:
    """Continue each prompt `num_samples` times, giving out each sample when it is finished."""
    plan = make_plan(model, prompts, settings, num_samples=num_samples)
    for writing, _ in pieces(plan):
        if writing.finish_reason is not None:
            yield writing.sample(seed=plan.seed, logprobs=settings.logprobs)


def pieces(plan: Plan) -> Generator[tuple[Writing, str]]:
    """Write all texts: each with its new characters, until its `finish_reason` is set.

    They come token by token, but for several texts on a GPU, and for methods that know a text only at its end.
    """
    settings = plan.settings
    with nullcontext() if plan.native else _eval_mode(plan.model.model):
        if settings.method == "sampling":
            yield from _decoded(plan, plan.jobs)
            return
        # The other methods know one text, or for beam search one list of texts, for a prompt.
        by_prompt: dict[int, list[Job]] = {}
        for job in plan.jobs:
            by_prompt.setdefault(job.prompt_index, []).append(job)
        if settings.method == "beam":
            for jobs in by_prompt.values():
                yield from _beams(plan, jobs)
            return
        first = [jobs[0] for jobs in by_prompt.values()]
        found = _decoded(plan, first) if settings.method == "greedy" else _contrastive(plan, first)
        for writing, piece in found:
            yield writing, piece
            if writing.finish_reason is not None:
                for job in by_prompt[writing.job.prompt_index][1:]:
                    yield writing.copy_for(job), writing.text


def _decoded(plan: Plan, jobs: Sequence[Job]) -> Iterator[tuple[Writing, str]]:
    """Greedy search or sampling, in batches of similar length."""
    settings = plan.settings
    waiting = sorted(jobs, key=lambda job: len(job.prompt_ids))  # the longest last, and taken first
    while waiting:
        size = settings.batch_size or _rows_that_fit(plan, longest=len(waiting[-1].prompt_ids))
        batch = [Writing(job, plan.model.tokenizer, plan.ending) for job in waiting[-size:]]
        del waiting[-size:]
        yield from _decoded_batch(plan, batch)


def _decoded_batch(plan: Plan, batch: Sequence[Writing]) -> Iterator[tuple[Writing, str]]:
    settings = plan.settings
    cutoffs = None
    if settings.method == "sampling":
        cutoffs = CutoffRules(settings.temperature, settings.top_k, settings.top_p, settings.min_p, settings.typical_p)
    if plan.native is not None:
        from gpt2kit.generation import native_decoding

        return native_decoding.decode(
            plan.native,
            batch,
            penalties=plan.penalties,
            cutoffs=cutoffs,
            keep=settings.window_keep,
            lookup=settings.lookup,
            logprobs=settings.logprobs,
        )
    from gpt2kit.generation import decoding, gpu_decoding
    from gpt2kit.generation.sampling import Cutoffs

    network = plan.model.model
    if gpu_decoding.can_decode(network, batch, penalties=plan.penalties, cutoffs=cutoffs):
        return gpu_decoding.decode(network, batch, penalties=plan.penalties, cutoffs=cutoffs)
    return decoding.decode(
        network,
        batch,
        penalties=_penalties(plan),
        cutoffs=None if cutoffs is None else Cutoffs(**asdict(cutoffs)),
        keep=settings.window_keep,
    )


def _penalties(plan: Plan) -> "Penalties":
    """The rules as PyTorch's methods take them."""
    from gpt2kit.generation.decoding import Penalties

    return Penalties(**asdict(plan.penalties))


def _rows_that_fit(plan: Plan, *, longest: int) -> int:
    """How many texts may be written at a time within the memory that is free."""
    config = plan.model.config
    if plan.native is not None:
        columns = min(longest + plan.ending.max_new_tokens, config.n_positions)
        row_bytes = 4 * (2 * config.n_layer * config.n_embd * columns + config.vocab_size)
        return min(max(int(available_main_memory_bytes() * _MEMORY_SHARE / row_bytes), 1), _LARGEST_NATIVE_BATCH)
    from gpt2kit.generation.reader import num_columns

    model = plan.model.model
    device, itemsize = model.device, model.transformer.wte.weight.element_size()
    columns = num_columns(model.config, longest=longest, max_new_tokens=plan.ending.max_new_tokens)
    # Keys and values, and once more when ended rows are left out of the cache, which copies it.
    cache_bytes = 2 * 2 * config.n_layer * config.n_embd * columns * itemsize
    row_bytes = cache_bytes + config.vocab_size * _BYTES_PER_ENTRY
    most = _LARGEST_BATCH_ON_CPU if device.type == "cpu" else _LARGEST_BATCH_ON_GPU
    return min(max(int(available_memory_bytes(device) * _MEMORY_SHARE / row_bytes), 1), most)


def _contrastive(plan: Plan, jobs: Sequence[Job]) -> Iterator[tuple[Writing, str]]:
    from gpt2kit.generation.contrastive import contrastive_search

    for job in jobs:
        yield from contrastive_search(
            plan.model.model,
            Writing(job, plan.model.tokenizer, plan.ending),
            top_k=plan.settings.top_k,
            alpha=plan.settings.penalty_alpha,
            penalties=_penalties(plan),
            keep=plan.settings.window_keep,
        )


def _beams(plan: Plan, jobs: Sequence[Job]) -> Iterator[tuple[Writing, str]]:
    from gpt2kit.generation.beam import BeamSearch, beam_search

    settings = plan.settings
    search = BeamSearch(
        num_beams=settings.num_beams,
        length_penalty=settings.length_penalty,
        early_stopping=settings.early_stopping,
    )
    texts = beam_search(
        plan.model.model,
        jobs,
        search,
        tokenizer=plan.model.tokenizer,
        ending=plan.ending,
        penalties=_penalties(plan),
        keep=settings.window_keep,
    )
    for writing in texts:
        yield writing, writing.text


@contextmanager
def _eval_mode(model: "GPT2") -> Iterator[None]:
    """Switch dropout off, and afterwards on again if it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
