from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmrobust.data.dataset import Dataset
from mmrobust.data.prepare.digits import digit_tone, encode_picture, encode_wav
from mmrobust.data.prepare.manifest import ManifestColumns, prepare_manifest
from mmrobust.errors import DataError, MmrobustError, UsageError

Rows = list[dict[str, Any]]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder with two pictures and two recordings."""
    folder = tmp_path / "media"
    folder.mkdir()
    for i in range(2):
        (folder / f"{i}.png").write_bytes(encode_picture(np.full((4, 4), 100 * i, dtype=np.uint8)))
        (folder / f"{i}.wav").write_bytes(encode_wav(digit_tone("x", str(i)), 8000))
    return folder


def rows(**changes: Any) -> Rows:
    """Four rows of image and text; ``changes`` are those of the second one."""
    made = [
        {"id": f"s{i}", "image": f"{i % 2}.png", "text": f"text {i}", "label": "ab"[i % 2], "split": "train"}
        for i in range(4)
    ]
    made[3]["split"] = "test"
    made[1] |= changes
    return made


def without(made: Rows, *columns: str) -> Rows:
    return [{key: value for key, value in row.items() if key not in columns} for row in made]


def write_csv(folder: Path, made: Rows, name: str = "manifest.csv", delimiter: str = ",") -> Path:
    file = folder / name
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, fieldnames=list(made[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(made)
    return file


def write_jsonl(folder: Path, made: Rows) -> Path:
    file = folder / "manifest.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in made) + "\n\n", encoding="utf-8")
    return file


def write_parquet(folder: Path, made: Rows) -> Path:
    file = folder / "manifest.parquet"
    pq.write_table(pa.Table.from_pylist(made), file)
    return file


def test_every_format_gives_the_same_data_set(media: Path, tmp_path: Path) -> None:
    made = rows(image=None)
    sources = [
        write_csv(media, made),
        write_csv(media, made, "manifest.tsv", "\t"),
        write_jsonl(media, made),
        write_parquet(media, made),
    ]
    infos = [prepare_manifest(source, tmp_path / source.suffix) for source in sources]
    assert len({info.fingerprint for info in infos}) == 1
    info = infos[0]
    assert (info.name, info.modalities, info.classes, info.task) == (
        "media",
        ("image", "text"),
        ("a", "b"),
        "single-label",
    )
    assert info.headline_metric == "accuracy"
    assert info.source == str(sources[0])
    train = list(Dataset(tmp_path / ".csv").split("train"))
    assert [(s.id, s.image, s.text, s.label) for s in train] == [
        ("s0", (media / "0.png").read_bytes(), "text 0", (0,)),
        ("s1", None, "text 1", (1,)),
        ("s2", (media / "0.png").read_bytes(), "text 2", (0,)),
    ]


def test_the_emoji_as_they_lie(shared: Path, tmp_path: Path) -> None:
    info = prepare_manifest(shared / "data" / "emoji" / "manifest.csv", tmp_path / "out", licence="Apache-2.0")
    assert (info.name, info.licence, len(info.classes)) == ("emoji", "Apache-2.0", 8)
    assert info.splits == {"train": 1142, "validation": 153, "test": 341}


def test_audio_comes_before_image_and_after_text(media: Path, tmp_path: Path) -> None:
    two = [{"audio": f"{i}.wav", "image": f"{i}.png", "label": i} for i in range(2)]
    assert prepare_manifest(write_jsonl(media, two), tmp_path / "2").modalities == ("audio", "image")
    three = [row | {"text": "t"} for row in two]
    assert prepare_manifest(write_jsonl(media, three), tmp_path / "3").modalities == ("image", "text", "audio")


def test_a_column_that_is_empty_throughout_is_no_modality(media: Path, tmp_path: Path) -> None:
    made = [row | {"audio": "", "image": " "} for row in rows()]
    assert prepare_manifest(write_csv(media, made), tmp_path / "out").modalities == ("text",)


def test_columns_of_other_names(media: Path, tmp_path: Path) -> None:
    renamed = [{"key": r["id"], "words": r["text"], "kind": r["label"], "fold": r["split"]} for r in rows()]
    columns = ManifestColumns(id="key", text="words", label="kind", split="fold")
    info = prepare_manifest(write_csv(media, renamed), tmp_path / "out", columns=columns, name="mine")
    assert (info.name, info.modalities, info.splits) == ("mine", ("text",), {"train": 3, "test": 1})


def test_without_ids_and_splits(media: Path, tmp_path: Path) -> None:
    made = [{"text": f"text {i}", "label": i % 2} for i in range(100)]
    remarks: list[str] = []
    info = prepare_manifest(write_csv(media, made), tmp_path / "out", remark=remarks.append)
    assert info.splits == {"train": 80, "validation": 10, "test": 10}
    assert len(remarks) == 2
    assert "no column 'split': split 80/10/10 into train, validation, test" in remarks[0]
    assert remarks[1].endswith("manifest.csv: CSV delimited by commas; labels are indexes: single-label, 2 classes")
    ids = [i for split in info.splits for i in Dataset(tmp_path / "out").split(split).ids]
    assert sorted(ids) == [f"row-{i:06d}" for i in range(1, 101)]
    assert prepare_manifest(write_jsonl(media, made), tmp_path / "again").fingerprint == info.fingerprint


def test_names_of_splits(media: Path, tmp_path: Path) -> None:
    names = ["Train", "training", "val", "valid", "dev", "validation", "TEST", "testing"]
    made = [{"text": "t", "label": i % 2, "split": name} for i, name in enumerate(names)]
    info = prepare_manifest(write_csv(media, made), tmp_path / "out")
    assert info.splits == {"train": 2, "validation": 4, "test": 2}


def test_multi_label_by_bars_or_lists(media: Path, tmp_path: Path) -> None:
    bars = [{"text": "t", "label": label, "split": "train"} for label in ("b|a", "c", "a | c|a")]
    info = prepare_manifest(write_csv(media, bars), tmp_path / "csv")
    assert (info.task, info.headline_metric, info.classes) == ("multi-label", "macro_f1", ("a", "b", "c"))
    assert Dataset(tmp_path / "csv").split("train").labels == ((0, 1), (2,), (0, 2))
    lists = [row | {"label": label} for row, label in zip(bars, (["b", "a"], ["c"], ["a", "c"]), strict=True)]
    assert prepare_manifest(write_jsonl(media, lists), tmp_path / "jsonl").fingerprint == info.fingerprint
    plain = prepare_manifest(write_csv(media, bars), tmp_path / "plain", task="single-label")
    assert plain.classes == ("a | c|a", "b|a", "c")


def test_binary_is_asked_for(media: Path, tmp_path: Path) -> None:
    info = prepare_manifest(write_csv(media, rows()), tmp_path / "out", task="binary")
    assert (info.task, info.headline_metric) == ("binary", "auroc")
    chosen = prepare_manifest(write_csv(media, rows()), tmp_path / "acc", task="binary", headline_metric="accuracy")
    assert chosen.headline_metric == "accuracy"


def test_classes_are_sorted_as_numbers_where_all_are(media: Path, tmp_path: Path) -> None:
    numbers = [{"text": "t", "label": label} for label in (10, 9, 2)]
    assert prepare_manifest(write_csv(media, numbers), tmp_path / "1").classes == ("2", "9", "10")
    mixed = [{"text": "t", "label": label} for label in ("10", "9", "x")]
    assert prepare_manifest(write_csv(media, mixed), tmp_path / "2").classes == ("10", "9", "x")
    floats = write_parquet(media, [{"text": "t", "label": 1.0}, {"text": "t", "label": 0.0}])
    assert prepare_manifest(floats, tmp_path / "3").classes == ("0", "1")


def test_a_limit_keeps_the_classes_and_modalities_of_all(media: Path, tmp_path: Path) -> None:
    made = [row | {"image": "" if i else "0.png"} for i, row in enumerate(rows()[::-1])]
    info = prepare_manifest(write_csv(media, made), tmp_path / "out", limit=1)
    assert info.splits == {"train": 1, "test": 1}
    assert info.classes == ("a", "b")
    assert info.modalities == ("image", "text")


def test_the_first_few_rows_of_a_sorted_table_are_of_few_classes_and_it_is_said(media: Path, tmp_path: Path) -> None:
    made = [{"id": f"s{i:02}", "text": f"t{i}", "label": "abcdef"[i // 5], "split": "train"} for i in range(30)]
    remarks: list[str] = []
    prepare_manifest(write_csv(media, made), tmp_path / "out", limit=10, remark=remarks.append)
    assert "the first 10 training samples are of 2 of the 6 classes: shuffle the source's list, or take more" in remarks


def test_long_texts_and_absolute_paths(media: Path, tmp_path: Path) -> None:
    made = rows(text="x" * 300_000, image=str(media / "1.png"))
    made[0]["text"] = 'two\nlines, "quoted" ü'
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for row in made:
        row["image"] = str(media / Path(row["image"]).name)
    prepare_manifest(write_csv(elsewhere, made), tmp_path / "out")
    train = list(Dataset(tmp_path / "out").split("train"))
    assert train[0].text == 'two\nlines, "quoted" ü'
    assert len(train[1].text or "") == 300_000
    assert csv.field_size_limit() == 131_072


def fails(source: Path, tmp_path: Path, message: str, kind: type[MmrobustError] = DataError, **settings: Any) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind, match=message) as raised:
        prepare_manifest(source, tmp_path / "out", **settings)
    assert "\n" not in str(raised.value)
    assert str(source) in str(raised.value) or kind is UsageError
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (rows(label=""), r"manifest\.csv, row 2 \(line 3\): the label is empty"),
        (rows(label=" "), "row 2 .*: the label is empty"),
        (rows(label="a||b"), r"row 2 .*: label 'a\|\|b' has an empty part"),
        (rows(split="tset"), r"row 2 .*: split 'tset' is not one of train, validation, test \(or val"),
        (rows(split=""), "row 2 .*: split '' is not one of"),
        (rows(id="s0"), r"row 2 .*: id 's0' is already that of row 1"),
        (rows(id=""), "row 2 .*: the id is empty"),
        (rows(image="", text=""), "row 2 .*: sample 's1' has no image and no text; leave the row out"),
        (rows(image="no.png"), r"row 2 .*: image .*no\.png cannot be read \(No such file"),
        (rows(image="."), r"row 2 .*: image .* cannot be read \(Is a directory"),
        (rows(image="0.wav"), r"row 2 .*0\.wav: is not a picture"),
        (without(rows(), "label"), "no column 'label'|unknown column 'label'"),
        (without(rows(), "image", "text"), "none of the columns image, text, audio; it has id, label, split"),
        ([row | {"image": "", "text": ""} for row in rows()], "the columns image and text are empty throughout"),
        ([row | {"label": "a"} for row in rows()], "every sample is of class 'a'; two or more classes"),
        (rows()[:0] or [{"text": "x", "label": "a"}], "every sample is of class 'a'"),
    ],
)
def test_a_row_that_does_not_fit_is_named_and_nothing_is_written(
    media: Path, tmp_path: Path, made: Rows, message: str
) -> None:
    fails(write_csv(media, made), tmp_path, message)


def test_broken_media_are_named_and_nothing_is_written(media: Path, tmp_path: Path) -> None:
    source = write_csv(media, rows())
    whole = (media / "1.png").read_bytes()
    (media / "1.png").write_bytes(whole[:40])
    fails(source, tmp_path, r"row 2 .*1\.png: the picture cannot be read|row 2 .*1\.png: is no picture")
    (media / "1.png").write_bytes(b"")
    fails(source, tmp_path, r"row 2 .*1\.png: the picture is empty")
    (media / "1.wav").write_bytes(encode_wav(np.zeros(0), 8000))
    audio = write_csv(media, [row | {"audio": "1.wav", "image": ""} for row in rows()])
    fails(audio, tmp_path, r"row 1 .*1\.wav: the recording is empty")


def test_files_that_are_no_manifest(media: Path, tmp_path: Path) -> None:
    fails(media / "none.csv", tmp_path, r"none\.csv: no such file; name the manifest, a CSV")
    fails(media, tmp_path, "is a folder; name the manifest itself")
    unknown = r"0\.png: its format is unknown; the name must end in \.csv, \.tsv, \.jsonl, \.parquet"
    fails(media / "0.png", tmp_path, unknown)
    for name, content, message in (
        ("empty.csv", b"", "is empty; the first line must name the columns"),
        ("header.csv", b"text,label\n", "has no rows"),
        ("short.csv", b"text,label\na,b\nc\n", r"row 2 \(line 3\): has 1 fields, the header names 2"),
        ("long.csv", b"text,label\na,b,c\n", r"row 1 \(line 2\): has 3 fields"),
        ("twice.csv", b"text,text,label\na,b,c\n", "column 'text' appears twice"),
        ("quote.csv", b'text,label\n"a,b\n', r"line \d: cannot be read as CSV"),
        ("latin.csv", "text,label\nä,b\n".encode("latin-1"), "is not UTF-8 text"),
        ("empty.jsonl", b"\n", "is empty; each line must be a JSON object"),
        ("broken.jsonl", b'{"text": "a", "label": 1}\n{"text"\n', r"row 2 \(line 2\): is not JSON"),
        ("list.jsonl", b"[1]\n", r"row 1 \(line 1\): is not a JSON object"),
        ("dict.jsonl", b'{"text": {"a": 1}, "label": 1}\n', "row 1 .*: 'text' holds a dict"),
        ("lists.jsonl", b'{"text": ["a"], "label": 1}\n', "row 1 .*: 'text' holds a list"),
        ("broken.parquet", b"PAR1", "cannot be read as Parquet"),
    ):
        (media / name).write_bytes(content)
        fails(media / name, tmp_path, message)


def test_tables_as_spreadsheets_write_them(media: Path, tmp_path: Path) -> None:
    """Other delimiters, empty columns and rows, Unicode text, a line that names the delimiter."""
    plain = prepare_manifest(write_csv(media, rows()), tmp_path / "plain")
    header = "id;image;text;label;split"
    lines = [";".join(row.values()) for row in rows()]
    for name, text, coding in (
        ("semicolons.csv", "\n".join([header, *lines]), "utf-8-sig"),
        ("named.csv", "\r\n".join(["sep=;", header, *lines]), "utf-8"),
        ("tabs.csv", "\n".join([header, *lines]).replace(";", "\t"), "utf-8"),
        ("commas.tsv", "\n".join([header, *lines]).replace(";", ","), "utf-8"),
        ("unicode.csv", "\r\n".join([header, *lines]).replace(";", "\t"), "utf-16"),
        ("empty.csv", "\n".join(line + ";;" for line in [header, *lines, ";;;;", ";;;;"]), "utf-8"),
    ):
        (media / name).write_text(text, encoding=coding, newline="")
        assert prepare_manifest(media / name, tmp_path / name).fingerprint == plain.fingerprint, name
    (media / "value.csv").write_text("text;label;\na;b;\na;c;d\n")
    fails(media / "value.csv", tmp_path, r"row 2 \(line 3\): has 3 fields, the header names 2")
    (media / "wrong.csv").write_text("text;class\na;b\n")
    fails(
        media / "wrong.csv", tmp_path, r"\(CSV delimited by semicolons\): unknown column 'label'.* Known: text, class;"
    )


def test_media_in_parquet(media: Path, tmp_path: Path) -> None:
    """Bytes, and the structs of bytes and path that Hugging Face's datasets writes, were refused."""
    plain = prepare_manifest(write_csv(media, rows()), tmp_path / "plain")
    content = {name: (media / name).read_bytes() for name in ("0.png", "1.png")}
    structs = [row | {"image": {"bytes": content[row["image"]], "path": row["image"]}} for row in rows()]
    some = [row | {"image": {"bytes": None, "path": row["image"]}} for row in rows()]
    raw = [row | {"image": content[row["image"]]} for row in rows()]
    for name, made in (("structs", structs), ("paths", some), ("bytes", raw)):
        assert prepare_manifest(write_parquet(media, made), tmp_path / name).fingerprint == plain.fingerprint, name
    none = [row | {"image": {"bytes": None, "path": None}} for row in rows()]
    assert prepare_manifest(write_parquet(media, none), tmp_path / "none").modalities == ("text",)
    broken = rows(image="0.png")
    torn = [row | {"image": {"bytes": content["0.png"][:40], "path": "0.png"}} for row in broken]
    fails(write_parquet(media, torn), tmp_path, "row 1: the image in the table: the picture cannot be read")
    decoded = [row | {"image": {"array": [0.1], "sampling_rate": 8000}} for row in rows()]
    fails(write_parquet(media, decoded), tmp_path, "row 1: 'image' holds a struct of array, sampling_rate; it takes a")


def test_paths_may_start_elsewhere(media: Path, tmp_path: Path) -> None:
    tables = media / "tables"
    tables.mkdir()
    info, _, said = prepared(write_csv(tables, rows()), tmp_path / "above")
    assert f"; paths of image start in {media.resolve()}" in said[0]
    assert info.fingerprint == prepare_manifest(write_csv(media, rows()), tmp_path / "plain").fingerprint
    _, _, said = prepared(write_csv(tmp_path, rows(), "m.csv"), tmp_path / "beside")
    assert f"; paths of image start in {media}" in said[0]
    elsewhere = tmp_path / "a" / "b" / "c" / "d"
    elsewhere.mkdir(parents=True)
    fails(write_csv(elsewhere, rows()), tmp_path, r"d/0\.png cannot be read \(No such file")
    prepare_manifest(elsewhere / "manifest.csv", tmp_path / "given", media_root=media)


def test_a_byte_order_mark_is_no_part_of_the_first_column(media: Path, tmp_path: Path) -> None:
    (media / "bom.csv").write_bytes(b"\xef\xbb\xbflabel,text\r\na,x\r\nb,y\r\n")
    assert prepare_manifest(media / "bom.csv", tmp_path / "out").classes == ("a", "b")


def test_settings_that_do_not_fit(media: Path, tmp_path: Path) -> None:
    source = write_csv(media, rows())
    fails(source, tmp_path, r"unknown task 'multilabel': did you mean 'multi-label'\?", UsageError, task="multilabel")
    fails(source, tmp_path, "unknown metric of the task single-label 'map'", UsageError, headline_metric="map")
    three = write_csv(media, rows(label="c"))
    fails(three, tmp_path, "has 3 classes; --task binary needs two", UsageError, task="binary")
    columns = ManifestColumns(text="txet")
    fails(source, tmp_path, r"--text-column: unknown column 'txet': did you mean 'text'\?", columns=columns)


def prepared(source: Path, out: Path, **settings: Any) -> tuple[Any, list[tuple[str, ...]], list[str]]:
    """The description, the names of each training sample's classes, and what was said."""
    said: list[str] = []
    info = prepare_manifest(source, out, remark=said.append, **settings)
    return info, [tuple(info.classes[i] for i in label) for label in Dataset(out).split("train").labels], said


def labelled(*labels: Any) -> Rows:
    return [{"text": f"text {i}", "label": label, "split": "train"} for i, label in enumerate(labels)]


def test_multi_hot_lists(media: Path, tmp_path: Path) -> None:
    """They were read as the classes 0 and 1."""
    vectors = ([1, 0, 1], [0, 0, 0], [0, 1, 1])
    wanted = [("0", "2"), (), ("1", "2")]
    sources = {
        "jsonl": write_jsonl(media, labelled(*vectors)),
        "parquet": write_parquet(media, labelled(*([float(bit) for bit in v] for v in vectors))),
        "csv": write_csv(media, labelled(*map(str, vectors)), "json.csv"),
        "numpy": write_csv(media, labelled(*map(np.array, vectors)), "numpy.csv"),
    }
    for name, source in sources.items():
        info, labels, said = prepared(source, tmp_path / name)
        assert (info.task, info.classes, labels) == ("multi-label", ("0", "1", "2"), wanted)
        assert said[0].endswith("labels are multi-hot vectors of 3: multi-label, 3 classes")
    one_hot, labels, said = prepared(write_jsonl(media, labelled([0, 1], [1, 0])), tmp_path / "one")
    assert (one_hot.task, labels) == ("single-label", [("1",), ("0",)])
    assert "one-hot vectors of 2" in said[0]


@pytest.mark.parametrize(
    "cells",
    [
        ("['a', 'b']", "['c']", "[]"),
        ('["a", "b"]', '["c"]', "[]"),
        ("['a' 'b']", "['c']", "[]"),  # an array of NumPy, as pandas writes it
        ("{'a', 'b'}", "('c',)", "[]"),
        ('{"choices": ["a", "b"]}', "c", "[]"),  # several choices and one, as Label Studio writes them
        ("a|b", "c", "[]"),
    ],
)
def test_lists_of_classes_as_text(media: Path, tmp_path: Path, cells: tuple[str, ...]) -> None:
    """Each distinct list was a class."""
    info, labels, _ = prepared(write_csv(media, labelled(*cells)), tmp_path / "out")
    assert (info.task, info.classes) == ("multi-label", ("a", "b", "c"))
    assert labels == [("a", "b"), ("c",), ()]


def test_semicolons_join_classes_that_recur(media: Path, tmp_path: Path) -> None:
    info, labels, said = prepared(write_csv(media, labelled("a;b", "a", "b; c")), tmp_path / "out")
    assert (info.task, labels) == ("multi-label", [("a", "b"), ("a",), ("b", "c")])
    assert "labels are names joined by ';'" in said[0]


def test_labels_with_two_readings_are_refused_with_what_to_type(media: Path, tmp_path: Path) -> None:
    unclear = write_csv(media, labelled("a;b", "c"))
    fails(unclear, tmp_path, r"label 'a;b' is one class or several: give --label-separator ';' .*, or --label-as-class")
    commas = write_csv(media, labelled("drum", "snare, drum", "flute"), "commas.csv")
    fails(commas, tmp_path, r"label 'snare, drum' is one class or several: give --label-separator ','")
    one, labels, _ = prepared(commas, tmp_path / "one", label_as_class=True)
    assert (one.task, labels) == ("single-label", [("drum",), ("snare, drum",), ("flute",)])
    several, labels, _ = prepared(commas, tmp_path / "several", label_separator=",")
    assert (several.task, labels) == ("multi-label", [("drum",), ("drum", "snare"), ("flute",)])
    assert prepared(commas, tmp_path / "task", task="multi-label")[0].fingerprint == several.fingerprint
    assert prepared(commas, tmp_path / "single", task="single-label")[0].fingerprint == one.fingerprint
    fails(commas, tmp_path, "no label contains the --label-separator '/'", label_separator="/")
    fails(commas, tmp_path, "--label-separator is blank", UsageError, label_separator=" ")
    both = {"label_as_class": True, "label_separator": ","}
    fails(commas, tmp_path, "excludes --label-separator", UsageError, **both)


def test_names_with_commas_are_names(media: Path, tmp_path: Path) -> None:
    info, _, _ = prepared(
        write_csv(media, labelled("tench, Tinca tinca", "goldfish, Carassius auratus")), tmp_path / "o"
    )
    assert (info.task, info.classes) == ("single-label", ("goldfish, Carassius auratus", "tench, Tinca tinca"))


def test_a_bar_in_an_element_of_a_list_is_part_of_its_name(media: Path, tmp_path: Path) -> None:
    """It was three classes."""
    info, labels, _ = prepared(write_jsonl(media, labelled(["a|b", "c"], ["d"])), tmp_path / "out")
    assert (info.classes, labels) == (("a|b", "c", "d"), [("a|b", "c"), ("d",)])


def test_decimals_are_no_classes_unless_that_is_said(media: Path, tmp_path: Path) -> None:
    """Forty distinct ones were forty classes."""
    forty = [f"{i / 7:.3f}" for i in range(1, 41)]
    points, commas = labelled(*forty), labelled(*(number.replace(".", ",") for number in forty))
    message = r"the labels are decimal numbers: 0\.143, 0\.286, 0\.429 …, 40 different ones; .*give --label-as-class if"
    fails(write_csv(media, points), tmp_path, message)
    fails(write_jsonl(media, labelled(*map(float, forty))), tmp_path, "the labels are decimal numbers: 0.143")
    message = r"decimal numbers \(with decimal commas\): 0,143.*or --label-separator ',' for several indexes"
    fails(write_csv(media, commas, "commas.csv", ";"), tmp_path, message)
    for said in ({"label_as_class": True}, {"task": "single-label"}):
        info, _, _ = prepared(write_csv(media, points), tmp_path / next(iter(said)), **said)
        assert len(info.classes) == 40
    whole, _, _ = prepared(write_csv(media, labelled("1.0", "0.0", "2")), tmp_path / "whole")
    assert whole.classes == ("0", "1", "2")
    fails(write_jsonl(media, labelled([0.1, 0.9], [0.5, 0.5])), tmp_path, "the list holds 0.1, but labels are classes")


def test_lists_that_are_no_labels(media: Path, tmp_path: Path) -> None:
    fails(write_jsonl(media, labelled(["a", None], ["b"])), tmp_path, "the list in 'label' holds None")
    fails(write_jsonl(media, labelled([["a"]], ["b"])), tmp_path, r"the list in 'label' holds \['a'\]")
    fails(write_jsonl(media, labelled({"a": 1}, "b")), tmp_path, "'label' holds a dict")
    fails(write_jsonl(media, labelled([0, 0], [0, 0])), tmp_path, "every label is a list of zeros")
    fails(write_csv(media, labelled("['a', 'b']", "c;d")), tmp_path, "label 'c;d' is no list, but others are")
    fails(write_jsonl(media, labelled(["a", "b"], ["c"])), tmp_path, "has 2 classes, but --task binary", task="binary")
    fails(write_csv(media, labelled("a", "b", "[]")), tmp_path, "has no class, but --task binary", task="binary")


def test_a_sample_without_a_class_in_multi_label_data(media: Path, tmp_path: Path) -> None:
    """It was called empty."""
    info, labels, _ = prepared(write_jsonl(media, labelled(["a", "b"], [], ["b"])), tmp_path / "list")
    assert (info.task, labels) == ("multi-label", [("a", "b"), (), ("b",)])
    fails(
        write_csv(media, labelled("a|b", "")), tmp_path, r"the label is empty; .*\(in multi-label data, \[\] is none\)"
    )


def test_a_class_in_the_test_split_alone_is_said(media: Path, tmp_path: Path) -> None:
    made = [*labelled("a", "b", "a"), {"text": "t", "label": "c", "split": "test"}]
    info, _, said = prepared(write_csv(media, made), tmp_path / "out")
    line = "class 'c' is in 1 test sample, but in no training sample: nothing can learn it"
    assert line in said
    assert line in info.notes


def test_labels_that_are_hardly_classes_are_asked_about(media: Path, tmp_path: Path) -> None:
    _, _, said = prepared(write_csv(media, labelled(*(f"caption {i}" for i in range(60)))), tmp_path / "many")
    assert "60 different labels in 60 rows: are they classes?" in said[0]
    _, _, said = prepared(write_csv(media, labelled("-1", "0", "1")), tmp_path / "withheld")
    assert "label '-1' is a class like others; if it stands for no label" in said[0]
