"""A column is added to the events while the line runs: what came before lacks it, and everything goes on."""

import numpy as np
import pandas as pd
import pytest

from tests.support.command.command_line import call, feed, make_events, make_shop, samples_of, springtide

COLOURED = {
    'position = "int"\n': 'position = "int"\ncolour = "string"\n',
    '[[fields]]\nname = "item"\n': '[[fields]]\nname = "colour"\ncolumns = ["colour"]\n\n[[fields]]\nname = "item"\n',
}


def configure(shop, replaced):
    text = (shop / "springtide.toml").read_text()
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    (shop / "springtide.toml").write_text(text)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Half of its events before the column, half with it."""
    made = make_shop(tmp_path_factory.mktemp("added") / "shop")
    feed(made, make_events(3, 200), "before", close=False)
    springtide(made, "run", "samples", "--until-end")
    configure(made, COLOURED)
    impressions, clicks = make_events(3, 200, 200)
    feed(made, (impressions.assign(colour="red"), clicks), "after")
    springtide(made, "run", "samples", "--until-end")
    return made


def test_samples_are_exported_with_the_column_null_where_it_was_not_there_yet(shop):
    samples = samples_of(shop)
    before = samples["impression_id"] < "imp-000200"
    assert samples.loc[before, "colour"].isna().all()
    assert (samples.loc[~before, "colour"] == "red").all()
    assert before.any()
    assert not before.all()


def test_training_learns_all_of_it(shop):
    assert springtide(shop, "run", "train", "--until-end")["samples"] == len(samples_of(shop))
    assert np.isfinite(pd.DataFrame(springtide(shop, "importance", "colour")["keys"])["importance"]).all()


def test_a_column_of_another_type_is_refused_by_name(shop, tmp_path):
    before = (shop / "springtide.toml").read_text()
    configure(shop, {'colour = "string"\n': 'colour = "int"\n'})
    refused = call("export", "samples", "--out", tmp_path / "out.parquet", "--project", shop, "--json")
    (shop / "springtide.toml").write_text(before)
    assert refused.code == 3
    assert "colour" in refused.result["error"]
