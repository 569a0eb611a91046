from pathlib import Path

import pytest

import own_home


def test_the_home_folder_is_the_run_s_own_and_whatever_is_written_there_is_found(tmp_path):
    assert Path.home() == own_home.HOME
    own_home.check_home()
    (Path.home() / ".cache" / "some").mkdir(parents=True)
    (Path.home() / ".art" / "more").write_text("x")
    with pytest.raises(AssertionError, match=r"found \.art/more, \.cache/some"):
        own_home.check_home()
    own_home.check_home()
