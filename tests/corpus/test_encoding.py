"""Encodings: found, or refused by name with the place of the first bad byte."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.corpus.account import BadFileError
from gpt2kit.corpus.encoding import check_encoding, detect_encoding
from gpt2kit.errors import UsageError

SENTENCES = {
    "german": "Es war einmal ein König, der hatte eine wunderschöne Tochter. Die Mädchen gingen über die Brücke "
    "und grüßten den alten Müller, während draußen die Vögel sangen.",
    "french": "Il était une fois une petite fille de village, la plus jolie qu'on eût su voir; sa mère en était folle, "
    "et sa mère-grand plus folle encore. Ça et là, elle était naïve.",
    "spanish": "En un lugar de la Mancha vivía un hidalgo. ¿Qué pasó? ¡Nada! El niño comió piña y después soñó.",
    "swedish": "Det var en gång en kung som hade en dotter. Hon gick över ån efter vatten och såg en räv på vägen.",
    "polish": "Był sobie król, był sobie paź i była też królewna. Żyli wśród róż, nie znali burz. Zażółć gęślą jaźń.",
    "czech": "Byl jednou jeden král a ten měl tři dcery. Příliš žluťoučký kůň úpěl ďábelské ódy. "
    "Nejstarší dcera řekla, že má otce ráda jako sůl, a otec se velmi rozzlobil.",
    "hungarian": "Egyszer volt, hol nem volt, egy öreg király, akinek három fia volt, és győzött az ördög fölött. "
    "Hűvös szél fújt.",
    "russian": "Жил-был старик со старухой у самого синего моря; они жили в ветхой землянке ровно тридцать три года.",
    "greek": "Μια φορά κι έναν καιρό ήταν ένας βασιλιάς που είχε τρεις κόρες. Η μεγαλύτερη ήταν όμορφη.",
    "turkish": "Bir varmış bir yokmuş, evvel zaman içinde kalbur saman içinde, develer tellal iken pireler berber "
    "iken, ben anamın beşiğini tıngır mıngır sallar iken, güzel bir kız yaşarmış.",
    "hebrew": "היה היה פעם מלך גדול שהיו לו שלוש בנות יפות. הבת הקטנה אהבה מאוד לטייל ביער.",
    "arabic": "كان يا ما كان في قديم الزمان ملك عظيم له ثلاث بنات جميلات وكانت الصغرى تحب الغابة.",
}
CODE_PAGES = {
    "german": ("cp1252", "latin-1", "mac_roman", "cp850"),
    "french": ("cp1252", "mac_roman", "cp850"),
    "spanish": ("cp1252", "mac_roman", "cp850"),
    "swedish": ("cp1252",),
    "polish": ("cp1250", "iso8859_2"),
    "czech": ("cp1250", "iso8859_2"),
    "russian": ("cp1251", "koi8_r", "cp866", "iso8859_5"),
    "greek": ("cp1253", "iso8859_7"),
    "turkish": ("cp1254",),
    "hebrew": ("cp1255",),
    "arabic": ("cp1256",),
}


def detected(data: bytes, encoding: str | None = None) -> str:
    return detect_encoding(io.BytesIO(data), encoding).encoding


def refused(data: bytes, encoding: str | None = None) -> str:
    with pytest.raises(BadFileError) as caught:
        detect_encoding(io.BytesIO(data), encoding)
    return str(caught.value)


@pytest.mark.parametrize(
    ("language", "encoding"), [(name, page) for name, pages in CODE_PAGES.items() for page in pages]
)
def test_a_code_page_is_found_by_the_language(language: str, encoding: str) -> None:
    text = SENTENCES[language] * 2
    found = detect_encoding(io.BytesIO(text.encode(encoding)))
    assert text.encode(encoding).decode(found.encoding) == text
    assert found.is_guess


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("language", SENTENCES)
def test_unicode_is_found_with_and_without_a_mark(language: str, encoding: str) -> None:
    text = SENTENCES[language] * 2
    found = detect_encoding(io.BytesIO(text.encode(encoding)))
    assert text.encode(encoding).decode(found.encoding) == text
    assert not found.is_guess


@given(st.text(min_size=1))
def test_whatever_is_utf8_is_read_as_utf8_or_refused_as_binary(text: str) -> None:
    data = text.encode()
    try:
        encoding = detected(data)
    except BadFileError as problem:
        assert problem.reason == "not text"  # noqa: PT017 (either way is right, depending on the text)
    else:
        assert data.decode(encoding) in (text, text.removeprefix("\ufeff")) or "\0" in text


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_are_decodable_as_found_or_refused(data: bytes) -> None:
    try:
        encoding = detected(data)
    except BadFileError:
        return
    assert isinstance(data.decode(encoding), str)


@pytest.mark.parametrize(("language", "encoding"), [("hungarian", "cp1250"), ("turkish", "cp1254")])
def test_a_code_page_that_is_not_certain_is_refused(language: str, encoding: str) -> None:
    """Short texts in which Western letters would look as good."""
    text = SENTENCES[language][:80]
    assert "no other encoding is certain" in refused(text.encode(encoding))
    assert detected(text.encode(encoding), encoding) == encoding


def test_asian_code_pages_are_refused_and_can_be_named() -> None:
    text = "むかしむかし、あるところに、おじいさんとおばあさんがいました。" * 5
    assert "--encoding" in refused(text.encode("shift_jis"))
    assert detected(text.encode("shift_jis"), "shift_jis") == "shift_jis"


def test_damaged_utf8_is_refused_with_offset_and_line() -> None:
    text = "Die Königin.\nDer Müller grüßte höflich.\n" * 3
    data = text.encode() + b"h\xffre\n"
    message = refused(data)
    assert "UTF-8 with damaged bytes" in message
    assert f"offset {len(text.encode()) + 1} (line 7)" in message
    assert "--encoding latin-1" in message


def test_cut_off_utf8_is_refused() -> None:
    assert "offset 6" in refused("“Yes”".encode()[:-1])


def test_bad_bytes_among_ascii_are_refused() -> None:
    words = b"The king told them all that he would not go there today, and then he slept. " * 20
    damaged = bytearray(words)
    for position, byte in zip(range(30, 1500, 40), b"\xff\xc0\xfe\x80\xbf" * 20, strict=False):
        damaged[position] = byte
    assert "offset 30" in refused(bytes(damaged))


def test_a_bad_byte_behind_the_first_megabytes_is_found() -> None:
    text = "Grüße.\n" * 400_000
    message = refused(text.encode() + b"\xff")
    assert f"offset {len(text.encode())} (line 400001)" in message


@pytest.mark.parametrize(
    ("data", "what"),
    [(b"%PDF-1.7 ...", "PDF"), (b"\x89PNG\r\n", "PNG"), (b"PK\x03\x04...", "zip"), (bytes(range(256)) * 40, "control")],
)
def test_binary_files_are_refused_by_name(data: bytes, what: str) -> None:
    assert what in refused(data)


def test_a_few_control_characters_do_not_make_a_text_binary() -> None:
    assert detected(b"Long,\0 long ago there was a king in a castle on a hill.\x07 " * 3) == "utf-8"


def test_a_named_encoding_is_for_files_that_are_not_utf8() -> None:
    assert detected("café".encode("latin-1"), "latin-1") == "latin-1"
    assert detected("café".encode(), "latin-1") == "utf-8"
    assert detected("\ufeffcafé".encode("utf-16-le"), "latin-1") == "utf-16"


def test_a_wrong_named_encoding_is_refused_with_the_offset() -> None:
    assert "is not ascii: cannot decode the byte at offset 3" in refused("café".encode("latin-1"), "ascii")


@pytest.mark.parametrize("name", ["nonsense", "base64", "rot13", ""])
def test_an_unknown_encoding_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="--encoding"):
        check_encoding(name)


def test_an_empty_file_is_told_apart() -> None:
    assert detect_encoding(io.BytesIO(b"")).is_empty
