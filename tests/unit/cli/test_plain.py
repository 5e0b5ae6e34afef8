"""What comes from a library cannot steer the terminal that shows it."""

import json

from paperlog.plain import json_text, one_line, plain


def test_escape_sequences_are_gone_with_what_they_carry():
    assert plain("a\x1b[31mred\x1b[0m b\x1b]0;title\x07c\x1b]8;;http://x\x1b\\d\x9b2Je") == "ared bcde"


def test_control_characters_become_spaces_and_lines_stay():
    assert plain("a\x00b\x07c\x85d\r\ne\tf") == "a b c d\ne f"


def test_letters_of_every_script_stay_and_direction_marks_go():
    assert plain("수면 \u202eنوم e\u0301") == "수면 نوم e\u0301"


def test_lone_surrogates_can_be_printed():
    assert plain("a\ud800b").encode() == "a\ufffdb".encode()


def test_one_line_folds_white_space():
    assert one_line(" a\n\n b\u2028c ") == "a b c"
    assert one_line(None) == ""


def test_json_is_the_same_value_without_a_control_character():
    value = {"title": "a\x1b[2J\x9b\u202e\u2028\ud800 수면"}
    text = json_text(value)
    assert json.loads(text) == value
    assert "수면" in text
    assert not any(0x7F <= ord(letter) <= 0x9F or ord(letter) < 0x20 for letter in text.replace("\n", ""))
