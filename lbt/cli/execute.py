"""What each verb does: it imports what it needs when it is called, so that no verb waits for another one's."""

import argparse

from lbt.errors import UserError


def init(options: argparse.Namespace) -> int:
    """Writes a folder of one's own."""
    from lbt.init import write

    return write(options.folder)


def reality(options: argparse.Namespace) -> int:
    """Writes the reality check, or chooses trials."""
    if options.words[:1] != ["choose"]:
        from lbt.report.reality.page import write

        return write(options.words, options.results_dir)
    from lbt.report.reality.selection import choose

    if not options.words[1:]:
        raise UserError("lbt reality choose: name a study, for instance reality_check")
    return max(choose(name, options.results_dir) for name in options.words[1:])


def verify(options: argparse.Namespace) -> int:
    """Checks records, repeats a run's beginning."""
    from lbt import verify

    if options.write_manifest:
        return verify.write_manifest(options.results_dir)
    again = {"epochs": options.epochs, "root": options.data_root}
    if options.run_id is not None:
        return verify.repeat(options.run_id, options.results_dir, **again)
    return max(verify.check_all(options.results_dir), verify.repeat_one(options.results_dir, **again))


def tables(options: argparse.Namespace) -> int:
    """Writes tables."""
    from lbt.report.layout import Wanted
    from lbt.report.tables import write_tables

    layout = Wanted(options.rows, options.columns, options.best, options.metric)
    return write_tables(options.names, options.results_dir, layout)


def plots(options: argparse.Namespace) -> int:
    """Draws figures."""
    from lbt.report.figures import write_figures
    from lbt.report.layout import Wanted

    layout = Wanted(options.rows, options.columns, options.best, options.metric)
    return write_figures(options.names, options.results_dir, layout)


def audit(options: argparse.Namespace) -> int:
    """Writes the audit."""
    from lbt.report.audit import write

    return write(options.results_dir)


def answer(options: argparse.Namespace) -> int:
    """Shows which optimizer the evidence favours."""
    from lbt.report.answer.screen import show

    return show(options.words, options.results_dir)


def report(options: argparse.Namespace) -> int:
    """Writes the page of all results."""
    from lbt.report.page import report

    return report(options.folder or options.results_dir)


def why(options: argparse.Namespace) -> int:
    """Writes what explains failures."""
    from lbt.report.why import write

    return write(options.results_dir)


def status(options: argparse.Namespace) -> int:
    """Shows which runs there are, once or again and again."""
    every = None if options.watch is None else _every(options)
    settings = [word for word in options.words if "=" in word]
    if not settings and every is not None:
        from lbt.sweep import watch

        return watch.names(options.words, options.results_dir, every)
    if not settings:
        from lbt.sweep import recorded

        names, folder = options.words, options.results_dir
        return recorded.show(names, folder) if names else recorded.show_all(folder)
    if options.results_dir != "results":
        raise UserError(f"--results-dir: beside settings it is one of them, results_dir={options.results_dir}")
    from lbt.sweep.mistakes import in_one_line
    from lbt.sweep.status import show

    with in_one_line():
        if every is None:
            return show(options.words)
        from lbt.sweep import watch

        return watch.grid(options.words, every)


def _every(options: argparse.Namespace) -> float:
    """Returns how often to look; another word than a number after `--watch` is one of the command's."""
    from lbt.sweep import watch

    every = watch.seconds(options.watch) if options.watch else watch.EVERY
    if every is None:
        options.words.insert(0, options.watch)
        return watch.EVERY
    return every


def evaluate(options: argparse.Namespace) -> int:
    """Scores kept weights."""
    from lbt.evaluate import show
    from lbt.sweep.mistakes import in_one_line

    with in_one_line():
        return show(options.run_id, options.overrides, options.results_dir)


def landscape(options: argparse.Namespace) -> int:
    """Draws the loss around kept weights."""
    from lbt import landscape
    from lbt.sweep.mistakes import in_one_line

    names = ("plane", "directions", "points", "images", "seed", "batch_norm")
    wanted = {name: getattr(options, name) for name in names}
    with in_one_line():
        span = None if options.span is None else tuple(options.span)
        return landscape.show(options.words, options.results_dir, landscape.Wanted(**wanted, span=span))


def profile(options: argparse.Namespace) -> int:
    """Shows where a run's time goes."""
    from lbt.profile import show
    from lbt.sweep.mistakes import in_one_line

    with in_one_line():
        return show(options.overrides, options.images, options.epochs)
