"""The command `results`."""

from maskmill.cli.options import ConfigOption, SetOption


def results(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Print the tables of what is done again."""
    from maskmill.cli.opened_run import leader_console, opened_run
    from pipeline.engine.runner import Runner
    from pipeline.records.snapshot import Snapshot
    from stages.graph import GRAPH

    with opened_run(config, overrides) as loaded:
        runner = Runner(loaded, GRAPH, leader_console())
        states = list(runner.status())
        done = [s.name for s in states if s.counts["fresh"] or s.counts["stale"]]
        with Snapshot().active():
            for stage in runner.stages(done):
                stage.summarize()
