"""Personal data scrubbed: what it was is told by a placeholder that is never longer than what it replaces."""

from __future__ import annotations

import re

URL, EMAIL, IDENTITY_NUMBER, PHONE_NUMBER = "[网址]", "[邮箱]", "[身份证号]", "[电话]"

# RFC 3986's characters; a full stop or bracket at the end belongs to the sentence.
_URL = re.compile(
    r"(?:(?i:https?|ftp)://|(?<![A-Za-z0-9.@/_-])(?:www|WWW)\.)"
    r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*[A-Za-z0-9/#=&%_~-]"
)
_EMAIL = re.compile(
    r"[A-Za-z0-9._%+-](?<![A-Za-z0-9._%+-]{2})[A-Za-z0-9._%+-]{0,63}"
    r"@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)

# A pattern that begins by looking behind is tried at every character; these, which begin with a set of characters, find
# in one quick scan that it need not be.
_MAYBE_IDENTITY = re.compile(r"[0-9][0-9]{16}")
_MAYBE_PHONE = re.compile(r"[0-9](?:[0-9]{6}|[-) ）][0-9 ])")

# GB 11643-1999: province, 4 digits of the place, date of birth, 3 digits of order, check character.
_PROVINCE = "1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]"
_IDENTITY = re.compile(
    rf"(?<![0-9A-Za-z])(?:{_PROVINCE})[0-9]{{4}}(?:18|19|20)[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
    r"[0-9]{3}[0-9Xx](?![0-9A-Za-z])"
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK = "10X98765432"

# An amount, a decimal, a range or a longer number that happens to hold 11 digits is none.
_BEFORE = r"(?<![0-9A-Za-z_])(?<![0-9][-.,])"
_AFTER = r"(?![0-9A-Za-z_])(?![-.,][0-9])(?! ?[元%％])"
_MOBILE = r"1[3-9][0-9](?:-[0-9]{4}-[0-9]{4}| [0-9]{4} [0-9]{4}|[0-9]{8})"
_AREA = r"(?:0[1-9][0-9]{1,2}-|\(0[1-9][0-9]{1,2}\) ?|（0[1-9][0-9]{1,2}） ?)"
_PHONE = re.compile(
    rf"(?:\+86[- ]?|{_BEFORE}(?:(?:00)?86[- ]?)?){_MOBILE}{_AFTER}"
    rf"|{_BEFORE}{_AREA}[2-8][0-9]{{6,7}}{_AFTER}"
    rf"|{_BEFORE}[48]00-[0-9]{{3}}-?[0-9]{{4}}{_AFTER}"
)


def without_urls(text: str) -> str:
    """URLs replaced."""
    return _URL.sub(URL, text) if "://" in text or "www." in text or "WWW." in text else text


def without_emails(text: str) -> str:
    """E-mail addresses replaced."""
    return _EMAIL.sub(EMAIL, text) if "@" in text else text


def without_identity_numbers(text: str) -> str:
    """Identity-card numbers whose date and checksum are right replaced."""
    if not _MAYBE_IDENTITY.search(text):
        return text
    return _IDENTITY.sub(lambda found: IDENTITY_NUMBER if is_identity_number(found[0]) else found[0], text)


def is_identity_number(number: str) -> bool:
    """Does the 18th character fit the 17 digits before it (ISO 7064, MOD 11-2)?"""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, number, strict=False))
    return number[17].upper() == _CHECK[total % 11]


def without_phone_numbers(text: str) -> str:
    """Chinese telephone numbers replaced."""
    return _PHONE.sub(PHONE_NUMBER, text) if _MAYBE_PHONE.search(text) else text
