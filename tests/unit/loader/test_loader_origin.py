import pytest
from loader_helpers import make_corpus, make_order

from lmbatch.errors import ShardError, StoreError
from lmbatch.loader import DocumentOrigin, Span, documents_of
from lmbatch.loader.origin import task_of

TRAIN = [[4, 3, 1, 2], [], [10]]


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path, TRAIN, [[5, 5]])


def origin(shard, document, split="train", task=None):
    task = shard if task is None else task
    path = f"raw/{task}-{'甲乙'[document % 2]}.json"
    return DocumentOrigin(path, 1000 * task + document, f"{split}{task}:{document}", shard, document)


@pytest.mark.parametrize(
    ("span", "documents"),
    [
        (Span(0, 0, 1), [0]),
        (Span(0, 3, 1), [0]),
        (Span(0, 3, 2), [0, 1]),
        (Span(0, 4, 3), [1]),
        (Span(0, 6, 3), [1, 2, 3]),
        (Span(0, 0, 10), [0, 1, 2, 3]),
        (Span(0, 9, 1), [3]),
    ],
)
def test_the_documents_that_a_span_touches(corpus, span, documents):
    assert documents_of(*corpus, "train", [span]) == [origin(0, document) for document in documents]


def test_several_spans_name_each_document_once_in_order(corpus):
    spans = [Span(2, 1, 2), Span(0, 5, 1), Span(0, 4, 1), Span(0, 9, 1)]
    assert documents_of(*corpus, "train", spans) == [origin(0, 1), origin(0, 3), origin(2, 0)]


def test_a_whole_sample_over_two_shards(corpus):
    order = make_order([10, 0, 10], 15)
    assert documents_of(*corpus, "train", order.locate(0)) == [*(origin(0, n) for n in range(4)), origin(2, 0)]


def test_shards_are_counted_within_their_split(corpus):
    found = documents_of(*corpus, "validation", [Span(0, 5, 1)])
    assert found == [origin(0, 1, "validation", task=3)]


def test_no_spans_no_documents(corpus):
    assert documents_of(*corpus, "train", []) == []


def test_a_missing_receipt(corpus):
    store, manifest = corpus
    store.delete("receipts/task-000000.json")
    with pytest.raises(StoreError, match="task-000000"):
        documents_of(store, manifest, "train", [Span(0, 0, 1)])


def test_the_task_is_the_beginning_of_the_name():
    assert task_of("shards/train/task-000012-03-abc.bin") == "task-000012"
    with pytest.raises(ShardError, match="other"):
        task_of("shards/train/other-000012.bin")
