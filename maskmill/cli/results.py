"""The command `results`."""

from maskmill.cli.options import ConfigOption, SetOption


def results(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Print the tables of what is done, as at the end of each stage."""
    from maskmill.cli.opened_run import leader_console, opened_run
    from pipeline.engine.runner import Runner
    from pipeline.records.snapshot import Snapshot
    from stages.graph import GRAPH

    with opened_run(config, overrides) as loaded, Snapshot().active():
        for stage in Runner(loaded, GRAPH, leader_console()).stages(loaded.sections):
            if any(unit.part.exists() for unit in stage.plan()):
                stage.summarize()
