// Begins: builds each view's controls, and draws a view's charts when it is first looked at.

const charts = island("charts");
buildGrids();
buildExplorer();
watch("figures", drawFigures);
watch("reality", drawStudies);
watch("audit", drawAudit);
start();
document.documentElement.dataset.ready = "1";
