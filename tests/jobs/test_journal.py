from pathlib import Path

from harness.jobs.journal import Journal, Tail, read_events


def test_a_tail_sees_only_what_is_new(tmp_path: Path) -> None:
    journal, tail = Journal(tmp_path / "e.jsonl"), Tail(tmp_path / "e.jsonl")
    journal.write("run.start", run="x")
    assert [event.name for event in tail.drain()] == ["run.start"]

    journal.write("note", text="two")

    assert [event.data for event in tail.drain()] == [{"text": "two"}]
    assert tail.drain() == []


def test_a_torn_last_line_is_the_end_and_is_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    journal = Journal(path)
    journal.write("run.start")
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"seq": 2, "time": 1.0, "eve')
    assert [event.name for event in read_events(path)] == ["run.start"]

    journal = Journal(path)
    journal.write("note", text="after the crash")

    assert [(event.seq, event.name) for event in read_events(path)] == [(1, "run.start"), (2, "note")]


def test_hostile_text_stays_one_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "e.jsonl")
    text = 'a\nb\r\u2028\x1b[31m"\ud800'
    journal.write("note", text=text)

    assert [event.data["text"] for event in read_events(tmp_path / "e.jsonl")] == [text]


def test_a_missing_journal_has_no_events(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "none.jsonl")) == []


def test_a_tail_takes_at_most_what_it_is_asked_for(tmp_path: Path) -> None:
    journal, tail = Journal(tmp_path / "e.jsonl"), Tail(tmp_path / "e.jsonl")
    for number in range(10):
        journal.write("note", text=str(number))

    assert [len(tail.drain(limit=4)) for _ in range(4)] == [4, 4, 2, 0]
