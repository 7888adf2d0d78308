"""lm-eval on our model, lm-eval's own model of the same folder, and our runner: the same numbers.

Importing lm-eval and transformers takes many seconds, so these tests are slow ones.
"""

import json
from pathlib import Path

import pytest

import gpt2kit
from gpt2kit import TaskSettings, load, run_tasks
from gpt2kit.errors import UsageError

NANO = Path(gpt2kit.__file__).parent / "nano"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of lm-eval, datasets and transformers

COMMON = "dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {file}\ntest_split: test\n"
LAMBADA = """task: local_lambada
output_type: loglikelihood
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' '+text.split(' ')[-1]}}"
metric_list:
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
CHOICES = """task: local_choices
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - metric: acc
  - metric: acc_norm
  - metric: acc_bytes
"""
PAGES = """task: local_pages
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: !function {preprocess}.wikitext_detokenizer
process_results: !function {preprocess}.process_results
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
"""
WRITING = """task: local_writing
output_type: generate_until
doc_to_text: "{{context}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs:
  until: ["."]
  max_gen_toks: 12
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture(scope="module")
def lm_eval(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield pytest.importorskip("lm_eval")
    patch.undo()


@pytest.fixture(scope="module")
def tasks(lm_eval, tmp_path_factory, tale):
    """Task files and their data: tales, questions, and pages of WikiText's form, one longer than nano's context."""
    folder = tmp_path_factory.mktemp("tasks")

    def write(name, text, rows):
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (folder / f"{name}.yaml").write_text(text + COMMON.format(file=file))

    write("lambada", LAMBADA, [{"text": tale(seed, sentences=4).rstrip(".")} for seed in range(25)])
    nouns = ("fox", "river", "castle — old")
    rows = [
        {"context": tale(seed, sentences=2) + " The", "choices": [f"{noun} {'é' * (seed % 3)}" for noun in nouns]}
        for seed in range(30)
    ]
    write("choices", CHOICES, [row | {"answer": number % 3} for number, row in enumerate(rows)])
    write("writing", WRITING, [row | {"answer": 0} for row in rows[:5]])
    pages = [
        f" = Page {number} = \n \n {tale(number, sentences=size)} It was 3 @.@ 5 , he said . \n"
        for number, size in enumerate((3, 150, 12))
    ]
    (folder / "wiki.raw").write_text("".join(pages))
    preprocess = Path(lm_eval.__file__).parent / "tasks" / "wikitext" / "preprocess_wikitext.py"
    (folder / "preprocess_wikitext.py").write_text(preprocess.read_text())
    # The reader's pages: the line end before the next heading parts two of them.
    split = ("".join(pages)).split("\n = Page")
    split = [split[0], *(" = Page" + rest for rest in split[1:])]
    write("pages", PAGES.format(preprocess="preprocess_wikitext"), [{"page": page} for page in split])
    return folder


@pytest.fixture(scope="module")
def ours(tasks, tmp_path_factory):
    names = ("local_lambada", "local_choices", "local_pages", "local_writing")
    found = run_tasks(
        TaskSettings(
            model_dir=str(NANO),
            lambada=(tasks / "lambada.jsonl",),
            multiple_choice=(tasks / "choices.jsonl",),
            wikitext=(tasks / "wiki.raw",),
            harness=names,
            include_path=tasks,
            output_dir=tmp_path_factory.mktemp("out"),
            device="cpu",
        )
    )
    return {each.task if each.kind == "harness" else each.kind: each for each in found.results}


@pytest.fixture(scope="module")
def theirs(lm_eval, tasks):
    """lm-eval's own model on the same folder."""
    pytest.importorskip("transformers")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(NANO), device="cpu", batch_size=1),
        tasks=["local_lambada", "local_choices", "local_pages", "local_writing"],
        task_manager=TaskManager(include_path=tasks),
        bootstrap_iters=0,
    )
    return found


PAIRS = [("lambada", "local_lambada"), ("multiple_choice", "local_choices"), ("wikitext", "local_pages")]


@pytest.mark.parametrize(("kind", "task"), PAIRS)
def test_runner_adapter_and_lm_evals_own_model_agree(kind, task, ours, theirs):
    own = theirs["results"][task]
    assert len(ours[kind].figures) >= 2
    for name, figure in ours[kind].figures.items():
        assert figure.value == pytest.approx(own[f"{name},none"], rel=1e-4), name
        assert ours[task].figures[name].value == pytest.approx(own[f"{name},none"], rel=1e-4), name
    assert ours[task].num_examples == ours[kind].num_examples


def test_standard_errors_of_shares_are_lm_evals(ours):
    for name, error in ours["multiple_choice"].standard_errors.items():
        assert error == pytest.approx(ours["local_choices"].standard_errors[name], rel=1e-6)


def test_texts_are_those_of_lm_evals_own_model(tasks, theirs):
    from lm_eval.api.instance import Instance

    from gpt2kit.evaluation.tasks.harness_model import HarnessModel

    model = HarnessModel(load(NANO, device="cpu", engine="torch"))
    samples = theirs["samples"]["local_writing"]
    requests = [
        Instance("generate_until", sample["doc"], tuple(sample["arguments"][0]), number)
        for number, sample in enumerate(samples)
    ]
    assert model.generate_until(requests) == [sample["resps"][0][0] for sample in samples]
    with pytest.raises(UsageError, match="and the model's context is"):
        model.generate_until([Instance("generate_until", {}, ("x", {"max_gen_toks": 100_000}), 0)])
    with pytest.raises(UsageError, match="num_beams=4, which gpt2kit has not"):
        model.generate_until([Instance("generate_until", {}, ("x", {"num_beams": 4}), 0)])


def test_a_model_by_name_and_an_unknown_task(lm_eval, tasks, tmp_path):
    from lm_eval.api.registry import get_model

    import gpt2kit.evaluation.tasks.harness_model  # noqa: F401 (registers the model)

    assert get_model("gpt2kit").create_from_arg_string(f"model={NANO}").eot_token_id >= 0
    common = {"model_dir": str(NANO), "output_dir": tmp_path, "device": "cpu"}
    with pytest.raises(UsageError, match="lm-eval has no such task; did you mean 'local_pages'"):
        run_tasks(TaskSettings(**common, harness=("local_page",), include_path=tasks))
    with pytest.raises(UsageError, match=r"--include_path .*: there is no such folder"):
        run_tasks(TaskSettings(**common, harness=("local_pages",), include_path=tmp_path / "none"))
