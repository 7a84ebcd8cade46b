"""Published tables of the same model."""

from deckard_deploy.measuring.baselines import baselines


def test_every_published_table_names_its_source() -> None:
    tables = baselines()
    assert {"seed", "author-plain", "author-dflash", "nvidia-nvfp4", "nvidia-mtp"} == set(tables)
    assert all(len(table.source) > 10 and len(table.method) > 10 for table in tables.values())
