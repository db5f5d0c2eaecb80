import time

import pytest

from spyhop.corpus.personal import redact


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to jane.doe+x@mail.example.co.uk today", "email"),
        ("Call +44 20 7946 0958 now", "phone"),
        ("Call (212) 555-0187.", "phone"),
        ("call 212-555-0187", "phone"),
        ("Tel. +49 (0)30 901820", "phone"),
        ("Dial 1-415-555-1234 now", "phone"),
        ("Dial 1 (415) 555-1234 now", "phone"),
        ("Ben, 415 555 1234, at home", "phone"),
        ("London 020 7946 0958", "phone"),
        ("tel 0171-1234567", "phone"),
        ("T/415-555-1234", "phone"),
        ("Tel. +49 (0) 30 / 1234567", "phone"),
        ("Call me at 4155551234.", "phone"),
        ("Telephone number: 01 23 45 67 89", "phone"),
        ("IBAN GB82 WEST 1234 5698 7654 32", "iban"),
        ("card 4111 1111 1111 1111.", "card"),
        ("SSN 123-45-6789", "ssn"),
        ("from 81.2.69.142 at noon", "ip"),
    ],
)
def test_personal_data_is_replaced_and_counted(text: str, kind: str):
    found, counts = redact(text)
    assert dict(counts) == {kind: 1} and f"[{kind}]" in found
    assert not any(char.isdigit() for char in found) and "@" not in found


@pytest.mark.parametrize(
    "text",
    [
        "ISBN 978-3-16-148410-0", "version 1.2.3.4 of it", "0.8414709848078965 0.909297426825681",
        "2020-11-22 14:30:15", "1,234,567,890 people", "mask 255.255.255.0, host 127.0.0.1",
        "array([[ 1,  2,  3,  4], [ 5,  6,  7,  8]])", "@decorator and a@b", "3.14159265358979",
        "GB82 WEST 1234 5698 7654 33", "4111 1111 1111 1112", "1 2 3 4 5 6 7 8 9 10 11 12 13",
        "call on 02-03-2021 at 10:15", "call 2020-11-22 14:30", "call f(0.123456789012)",
        "01 02 03 04 05 06",
        "table 100 200 3000 400 500 6000", "0110 1101 0011", "made 4155551234 of them",
        "phone 1234567890123",
        "ISBN 0-306-40615-2", "01-02-2020 03-04-2021", "$415 555 123", "1.415.555.123",
        "range 1990-2020", "doi 10.1000/182", "phone: 12-34", "np.zeros((100, 100))",
    ],
)  # fmt: skip
def test_other_numbers_stay(text: str):
    assert redact(text) == (text, {})


@pytest.mark.parametrize(
    "piece", ["a.", "1 ", "+1 ", "(1", "A1 ", "1.", "a@", "1-", "9", "0 ", "call 0", "01 / "]
)
def test_the_cost_is_linear(piece: str):
    started = time.monotonic()
    redact(piece * 100_000)
    assert time.monotonic() - started < 2
