from lbt.report import overview

SVG = (
    "<svg><metadata><dc:title>{title}</dc:title><dc:description>Ten runs</dc:description>"
    "<dc:source>some command</dc:source></metadata></svg>"
)


def page(folder):
    overview.write(folder)
    return (folder / "README.md").read_text()


def test_a_figure_that_describes_itself_is_shown_and_another_is_not(tmp_path):
    figures = tmp_path / "figures"
    figures.mkdir()
    for name in ("own", "unknown", "lonely"):
        (figures / f"{name}.png").write_bytes(b"")
    (figures / "own.svg").write_text(SVG.format(title="A &lt;b&gt; against B"))
    (figures / "unknown.svg").write_text("<svg/>")
    text = page(tmp_path)
    assert "### A &lt;b> against B\n" in text and "](figures/own.png)" in text
    assert "Ten runs. `some command` [SVG](figures/own.svg)" in text
    assert "unknown" not in text and "lonely" not in text


def test_a_studys_tables_are_named_and_what_only_begins_like_one_is_not(tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("reality_check_pairs", "reality_check_other", "reality_check_small_summary"):
        (tables / f"{name}.md").write_text("| batch |\n|---|\n| 1 |\n")
    (tables / "reality_check_pairs.csv").write_text("batch\n1\n")
    text = page(tmp_path)
    pairs = ": shifts between two optimizers (Hodges-Lehmann)](tables/reality_check_pairs.md)"
    assert f"{pairs} ([csv](tables/reality_check_pairs.csv))" in text
    assert ": final runs and tuning](tables/reality_check_small_summary.md) `lbt reality reality_check_small`" in text
    assert "reality_check_other" not in text
