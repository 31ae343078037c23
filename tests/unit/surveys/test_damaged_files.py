"""What is damaged is a reject or an error that names the file: one bad line, a cut gzip file, a header that nests."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.read_files import read, survey

from stellarml.core.errors import InputError
from stellarml.surveys import text_lines
from stellarml.surveys.descriptor import Files
from stellarml.surveys.raw_files import describe, find_files
from stellarml.surveys.raw_reader import Part
from stellarml.surveys.text_reader import TextReader
from stellarml.surveys.text_types import scan_texts

HEAD = b"id,ra,dec,n,s\n"
ROWS = [f"{i},{i}.5,-{i},{7 * i},star {i}".encode() for i in range(1, 9)]


def stored(folder: Path, content: bytes, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read(survey("n", "s"), path)
    for word in (str(path), *words):
        assert word in str(caught.value)


class TestLines:
    @pytest.mark.parametrize(
        "line",
        [
            b"1,2,3,4,caf\xe9,5",
            b"caf\xe9",
            b"1,2\xff,3,4",
            b'1,2,3,4,"caf\xe9",5',
            b"\xff" * 200,
            b"\xe9,\xe9,\xe9",
        ],
    )
    def test_not_utf8_and_a_wrong_number_of_columns(self, tmp_path: Path, line: bytes) -> None:
        """pyarrow hands such a line to Python as text, which fails, and gives up the whole block."""
        lines = [*ROWS[:3], line, *ROWS[3:]]
        table, rejects, _ = read(survey("n", "s"), stored(tmp_path, HEAD + b"\n".join(lines) + b"\n"))
        assert table["n"].to_pylist() == [7 * i for i in range(1, 9)] and table["n"].type == pa.int64()
        assert [number for number, _ in rejects] == [5] and "columns, expected 5" in rejects[0][1]

    def test_a_file_in_another_encoding(self, tmp_path: Path) -> None:
        lines = [b"%d,1,2,%d,caf\xe9%s" % (i, i, b"" if i % 3 else b",9") for i in range(600)]
        table, rejects, _ = read(survey("n"), stored(tmp_path, HEAD + b"\n".join(lines)))
        assert table.num_rows == 400, "the text is not asked for"
        assert [number for number, _ in rejects] == [i + 2 for i in range(600) if i % 3 == 0]

    def test_a_byte_order_mark_before_a_row(self, tmp_path: Path) -> None:
        """Files joined in one have it; whether the row is read must not hang on where a block begins."""
        lines = [b"%s%d,1,2,3,s" % (b"\xef\xbb\xbf" if i % 3 else b"", i) for i in range(9)]
        path = stored(tmp_path, HEAD + b"\n".join(lines) + b"\n")
        _, _, found = read(survey("n"), path)
        written, schema = Files(format="csv", glob="*"), pa.schema([("id", pa.string())])
        for block_bytes in (1, 13, 40, 1 << 20):
            blocks = list(TextReader().blocks(found.headers[0], ["id"], schema, written, block_bytes))
            assert [i for block in blocks for i in block.table["id"].to_pylist()] == [
                str(i) for i in range(9)
            ]

    @pytest.mark.parametrize("where", [0, 1, 2])
    @pytest.mark.parametrize("block_bytes", [1, 30, 1 << 20])
    def test_a_carriage_return_before_a_row(self, tmp_path: Path, where: int, block_bytes: int) -> None:
        lines = [*ROWS[:where], b"\r" + ROWS[where], *ROWS[where + 1 : 4]]
        _, _, found = read(survey("n"), stored(tmp_path, HEAD + b"\n".join(lines) + b"\n"))
        written, schema = Files(format="csv", glob="*"), pa.schema([("id", pa.int64())])
        blocks = list(TextReader().blocks(found.headers[0], ["id"], schema, written, block_bytes))
        assert [reject for block in blocks for reject in block.rejects] == [
            (where + 2, "a carriage return inside the line")
        ]

    @pytest.mark.parametrize("block_bytes", [4096, 1 << 20, 64 << 20])
    def test_a_line_longer_than_any_row(self, tmp_path: Path, block_bytes: int) -> None:
        """A line of all the rest of the file, or one value of 200 MB: its neighbours keep their types."""
        long = b"9,1,2,3" + b"x" * text_lines.MOST_LINE_BYTES + b",s"
        content = HEAD + b"\n".join([*ROWS[:3], long, *ROWS[3:], long]) + b"\n"
        path = stored(tmp_path, content)
        table, rejects, found = read(survey("n", "s"), path)
        assert table["n"].type == pa.int64() and table["n"].to_pylist() == [7 * i for i in range(1, 9)]
        assert rejects == [(n, f"a line of {len(long) + 1} bytes, expected at most 4194304") for n in (5, 11)]
        (header,) = found.headers
        schema = pa.schema([("n", pa.int64())])
        blocks = list(TextReader().blocks(header, ["n"], schema, Files(format="csv", glob="*"), block_bytes))
        assert sum(block.table.num_rows for block in blocks) == 8
        assert [reject[0] for block in blocks for reject in block.rejects] == [5, 11]
        assert [line for block in blocks for line in block.lines.tolist()] == [2, 3, 4, 6, 7, 8, 9, 10]

    def test_parts_of_a_file_with_a_long_line(self, tmp_path: Path) -> None:
        long = b"9,1,2,3" + b"x" * text_lines.MOST_LINE_BYTES + b",s"
        path = stored(tmp_path, HEAD + b"\n".join([*ROWS[:3], long, *ROWS[3:]]))
        _, _, found = read(survey("n"), path)
        (header,) = found.headers
        written, schema, size = (
            Files(format="csv", glob="*"),
            pa.schema([("n", pa.int64())]),
            path.stat().st_size,
        )
        for cut in (20, 60, 75, 90, 1 << 20, size - 60, size - 20):
            blocks = [
                block
                for part in (Part(14, cut), Part(cut, size))
                for block in TextReader().blocks(header, ["n"], schema, written, 1 << 20, part)
            ]
            assert [n for block in blocks for n in block.table["n"].to_pylist()] == [
                7 * i for i in range(1, 9)
            ]
            assert sum(len(block.rejects) for block in blocks) == 1
        (scan,) = scan_texts([header], [["n"]], written)
        assert (scan.rows, scan.rejected, scan.guesses["n"].type()) == (8, 1, pa.int64())


class TestHeaders:
    def test_a_line_of_names_of_more_than_a_megabyte(self, tmp_path: Path) -> None:
        names = [f"column_{i:07d}_of_a_wide_table" for i in range(40_000)]
        head = ",".join(["id", "ra", "dec", "n", "s", *names]).encode()
        rows = b"\n".join(row + b",1" * len(names) for row in ROWS[:2])
        table, rejects, _ = read(survey("n", "s"), stored(tmp_path, head + b"\n" + rows))
        assert len(head) > 1 << 20 and table["n"].to_pylist() == [7, 14] and not rejects

    def test_no_line_of_names_at_all(self, tmp_path: Path) -> None:
        refused(stored(tmp_path, b"x" * (5 << 20)), "line 1: no line of column names ends in the first 4 MB")
        refused(stored(tmp_path, b"# said\n" * (1 << 20)), "no line of column names ends in the first 4 MB")

    @pytest.mark.parametrize("line", [b'id,ra,"dec\n', b"\x1c\n", b'"\n'])
    def test_lines_that_are_no_names(self, tmp_path: Path, line: bytes) -> None:
        refused(stored(tmp_path, line + b"1,2,3\n"))

    def test_a_name_that_is_made_unique_stays_so(self, tmp_path: Path) -> None:
        table, _, found = read(survey("n", "n#4"), stored(tmp_path, b"id,ra,dec,n,n,n#4\n1,2,3,4,5,6\n"))
        assert table.to_pylist()[0]["n#4"] == 5 and [c.name for c in found.headers[0].columns][-1] == "n#4#5"

    NAMED = "# - {name: id, datatype: int64}\n# - {name: ra, datatype: float64}\n# - {name: dec, datatype: float64}\n"

    @pytest.mark.parametrize(
        "header",
        [
            "# datatype: " + "[" * 5000,
            "# datatype:\n" + NAMED + "# meta: " + "{a: " * 3000 + "}" * 3000,
            "# datatype:\n# " + "- " * 3000,
            "# datatype: 7",
            "# datatype: [7]",
            "# datatype: [{name: [a], datatype: int64}]",
            "# datatype: [{name: a}]",
            "# datatype: [{name: a, datatype: [int64]}]",
            "# datatype: [{name: a, datatype: int64, unit: [deg]}]",
            "# - list",
            "# text",
            "#",
            "# datatype:\n" + NAMED + "# delimiter: '\"'",
            "# datatype:\n" + NAMED + "# delimiter: long",
            "# datatype:\n" + NAMED + "# delimiter: [1]",
            "# datatype:\n" + NAMED + "# delimiter: é",
            "# datatype:\n" + NAMED + "# meta: 2026-13-45",
            "# datatype:\n" + NAMED + "# meta: !!timestamp x",
            "# datatype:\n" + NAMED + "# meta: !!int ''",
            "# datatype:\n" + NAMED + "# meta: !!float x",
            "# datatype:\n" + NAMED + "# meta: !!binary é",
            "# datatype:\n" + NAMED + "# meta: !!bool x",
            "# datatype:\n" + NAMED + "# meta: !!python/object/apply:os.system ['true']",
            "# datatype:\n" + NAMED + "# meta: !!python/name:os.system",
            "# datatype:\n" + NAMED + "# meta: {<<: {a: 1}}",
            "# datatype:\n" + NAMED + "# meta: *nowhere",
            "# datatype:\n" + NAMED + "# meta: \x01",
        ],
    )
    def test_odd_ecsv_headers(self, tmp_path: Path, header: str) -> None:
        content = f"# %ECSV 1.0\n# ---\n{header}\nid ra dec\n1 2 3\n"
        refused(stored(tmp_path, content.encode(), "a.ecsv"), "its ECSV header is damaged")

    def test_aliases_within_aliases_fill_no_memory(self, tmp_path: Path) -> None:
        nested = "".join(f"# - &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
        content = f"# %ECSV 1.0\n# ---\n# delimiter:\n# - &a0 [x]\n{nested}# datatype:\n{self.NAMED}id ra dec\n1 2 3\n"
        refused(stored(tmp_path, content.encode(), "a.ecsv"), "delimiter is a list")

    def test_tags_that_name_other_files_are_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        stored(tmp_path / "other", b"secret", "other.yaml")
        content = (
            f"# %ECSV 1.0\n# ---\n# datatype:\n{self.NAMED}# meta: !include {tmp_path}/other/other.yaml\n"
        )
        path = stored(tmp_path, content.encode() + b"id ra dec\n1 2 3\n", "a.ecsv")
        assert read(survey(), path)[0].num_rows == 1


class TestGzip:
    def test_cut_or_changed_anywhere(self, tmp_path: Path) -> None:
        sound = gzip.compress(HEAD + b"\n".join(ROWS * 40) + b"\n", mtime=0)
        for place in [*range(2, 60), *range(60, len(sound) - 1, 37), *range(len(sound) - 12, len(sound))]:
            refused(stored(tmp_path, sound[:place], "a.csv.gz"))
            changed = bytearray(sound)
            changed[place] ^= 0x55
            path = stored(tmp_path, bytes(changed), "a.csv.gz")
            try:
                table, rejects, _ = read(survey("n", "s"), path)
            except InputError as error:
                assert str(path) in str(error)
            else:
                assert table.num_rows + len(rejects) == 320 and place < 10, (
                    "only marks of the header may differ"
                )


class TestTables:
    def fits(self, *cards: tuple[str, Any]) -> bytes:
        from astropy.io import fits

        columns = [fits.Column(name, "D", array=np.arange(40.0)) for name in ("id", "ra", "dec")]
        tables = [fits.BinTableHDU.from_columns(columns, name=name) for name in ("a", "b")]
        stream = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), *tables]).writeto(stream)
        content = stream.getvalue()
        for key, value in cards:
            at = content.index(key.ljust(8).encode() + b"= ", 2880)
            content = content[: at + 10] + str(value).rjust(20).encode() + content[at + 30 :]
        return content

    @pytest.mark.parametrize(
        ("key", "value"), [("NAXIS2", -9), ("NAXIS1", -96), ("PCOUNT", -99_999), ("GCOUNT", -3)]
    )
    def test_sizes_that_lead_back_are_no_endless_loop(self, tmp_path: Path, key: str, value: int) -> None:
        refused(stored(tmp_path, self.fits((key, value)), "a.fits"), "extension 1")
        refused(stored(tmp_path, gzip.compress(self.fits((key, value))), "a.fits.gz"), "extension 1")

    def test_an_extension_that_cannot_be_read_is_not_passed_over(self, tmp_path: Path) -> None:
        content = self.fits()
        second = content.rindex(b"XTENSION")
        for damaged in (
            content[: second + 80] + b"BITPIX  = 'none'".ljust(80) + content[second + 160 :],
            content[:second] + b"XTENTION" + content[second + 8 :],
            content[: second + 2880].replace(b"END     ", b"EMD     ") + content[second + 2880 :],
        ):
            refused(stored(tmp_path, damaged, "a.fits"), "extension")

    def test_padding_that_is_missing_costs_nothing(self, tmp_path: Path) -> None:
        content = self.fits()
        data = content.rindex(b"END     ")
        data += -data % 2880
        path = stored(tmp_path, content[: data + 40 * 24], "a.fits")
        assert path.stat().st_size < len(content) and read(survey(), path)[0].num_rows == 80

    def test_a_table_that_is_cut_off(self, tmp_path: Path) -> None:
        content = self.fits()
        for size in (len(content) - 2880, len(content) - 2500, content.rindex(b"XTENSION") + 400):
            refused(stored(tmp_path, content[:size], "a.fits"))

    def test_a_votable_with_fewer_rows_than_it_states(self, tmp_path: Path) -> None:
        text = '<VOTABLE><RESOURCE><TABLE nrows="STATED">' + "".join(
            f'<FIELD name="{name}" datatype="double"/>' for name in ("id", "ra", "dec")
        )
        rows = "<TR><TD>1</TD><TD>2</TD><TD>3</TD></TR>" * 3
        text += f"<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
        refused(
            stored(tmp_path, text.replace("STATED", "4").encode(), "a.vot"),
            "states 4 rows (nrows) and holds 3",
        )
        for stated in ("3", "2", "x"):
            path = stored(tmp_path, text.replace("STATED", stated).encode(), "a.vot")
            if stated != "x":
                assert read(survey(), path)[0].num_rows == 3

    def test_text_in_parquet_that_is_none(self, tmp_path: Path) -> None:
        raw = pa.array([b"one", b"caf\xe9", None, b"four"])
        names = pa.StringArray.from_buffers(4, raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])
        table = pa.table({"id": [1, 2, 3, 4], "ra": [1.0] * 4, "dec": [1.0] * 4, "s": names})
        pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, store_schema=False)
        found, rejects, _ = read(survey("s"), tmp_path / "a.parquet")
        assert found["s"].to_pylist() == ["one", None, "four"]
        assert rejects == [(2, "column 's': is not UTF-8 text")]

    def test_parquet_whose_rows_lie_in_another_file(self, tmp_path: Path) -> None:
        table = pa.table({"id": [1, 2], "ra": [1.0, 2.0], "dec": [1.0, 2.0]})
        written: list[pq.FileMetaData] = []
        (tmp_path / "other").mkdir()
        pq.write_table(table, tmp_path / "other" / "a.parquet", metadata_collector=written)
        written[0].set_file_path("other/a.parquet")
        written[0].write_metadata_file(tmp_path / "a.parquet")
        refused(tmp_path / "a.parquet", "row group 0 lies in another file ('other/a.parquet')")


class TestNames:
    @pytest.mark.parametrize(
        "address", ["http://127.0.0.1:9/a.fits", "ftp://host/a.csv", "s3://bucket/a.parquet"]
    )
    def test_addresses_are_not_fetched(self, address: str) -> None:
        with pytest.raises(InputError, match="is an address, and nothing is downloaded"):
            find_files(survey(), Path(address))

    def test_a_file_whose_path_looks_like_an_address(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """astropy downloads what is called http:/...; a folder may be called so."""
        monkeypatch.chdir(tmp_path)
        folder = Path("http:")
        folder.mkdir()
        stored(folder, TestTables().fits(), "a.fits")
        vot = b"<VOTABLE><RESOURCE><TABLE>"
        vot += b"".join(b'<FIELD name="%s" datatype="double"/>' % name for name in (b"id", b"ra", b"dec"))
        vot += b"<DATA><TABLEDATA><TR><TD>1</TD><TD>2</TD><TD>3</TD></TR></TABLEDATA></DATA>"
        vot += b"</TABLE></RESOURCE></VOTABLE>"
        stored(folder, vot, "a.vot")
        assert read(survey(), folder / "a.fits")[0].num_rows == 80
        assert read(survey(), folder / "a.vot")[0].num_rows == 1

    @pytest.mark.parametrize("name", ["a**b/*.csv", "x" * 5000, "a\0b"])
    def test_names_that_no_file_can_have(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError):
            find_files(survey(), tmp_path / name)

    def test_what_cannot_be_opened(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be read"):
            describe(tmp_path, Files(format="csv", glob="*"), "a table")
