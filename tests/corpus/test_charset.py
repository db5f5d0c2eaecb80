import pytest

from spyhop.corpus.charset import decode

RUSSIAN = "Это обычная статья о том, как пекут хлеб. "
JAPANESE = "これは日本語で書かれた長い文章です。"
KOREAN = "이것은 한국어로 쓰인 긴 글입니다. "
FRENCH = "Voici un \u00e9l\u00e8ve tr\u00e8s d\u00e9vou\u00e9 \u00e0 la caf\u00e9t\u00e9ria. "


@pytest.mark.parametrize(
    ("text", "encoding", "declared", "header"),
    [
        (JAPANESE, "iso2022_jp", "iso-2022-jp", ""),
        (JAPANESE, "iso2022_jp", "", "iso-2022-jp"),
        (JAPANESE, "iso2022_jp", "utf-8", ""),
        (JAPANESE, "utf-16-le", "utf-8", "utf-16"),
        (JAPANESE, "utf-16-be", "", "utf-16be"),
        (RUSSIAN, "utf-16-le", "", ""),
        (RUSSIAN, "cp1251", "utf-8", ""),
        (RUSSIAN, "cp1251", "utf-8", "utf-8"),
        (RUSSIAN, "cp1251", "windows-1251", "utf-8"),
        (RUSSIAN, "koi8-r", "utf-8", "utf-8"),
        (KOREAN, "cp949", "utf-8", ""),
        (JAPANESE, "euc-jp", "utf-8", "utf-8"),
        (JAPANESE, "shift_jis", "x-sjis", ""),
        (FRENCH, "latin-1", "utf-8", ""),
        (RUSSIAN, "utf-8", "windows-1251", "windows-1251"),
        ("plain text", "ascii", "utf-16", "utf-16"),
    ],
)
def test_bytes_outweigh_a_wrong_declaration(text: str, encoding: str, declared: str, header: str):
    page = f'<html><head><meta charset="{declared}"><title>x</title></head><p>{text * 3}</p></html>'
    assert text in decode(page.encode(encoding), header)


def test_an_xml_declaration_counts_and_mixed_bytes_keep_what_can_be_read():
    page = f"<?xml version='1.0' encoding='koi8-r'?><p>{RUSSIAN}"
    assert RUSSIAN in decode(page.encode("koi8-r"), "")
    mixed = "<meta charset=utf-8><p>caf\u00e9 ".encode() + "caf\u00e9".encode("latin-1")
    assert decode(mixed, "").endswith("caf\u00e9 caf\ufffd")
