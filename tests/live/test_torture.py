"""Every process killed once while the market produces: no loss, no duplicates, the same model, the same served rows.

`python -m tests.torture --kills 100` is the long form.
"""

from tests.torture.run import torture
from tests.torture.schedule import VICTIMS, Plan, plan_kills

KILLS, SEED, RATE = 6, 9, 150.0


def test_whatever_is_killed_nothing_is_lost_or_doubled(cluster, tmp_path, capsys):
    with capsys.disabled():
        report = torture(cluster, tmp_path, Plan(list(plan_kills(KILLS, SEED))), SEED, rate=RATE, progress=print)
    assert report["samples"]["lost"] == report["samples"]["doubled"] == report["samples"]["differing"] == 0
    assert report["dead_letters"]["lost"] == report["dead_letters"]["doubled"] == 0
    assert report["model"]["equal"], report["model"]
    assert report["replica"]["equal"], report["replica"]
    assert report["equal"]
    assert sorted(kill["victim"] for kill in report["kills"]) == sorted(VICTIMS)
    assert report["samples"]["found"] > 1_000
