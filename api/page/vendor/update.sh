#!/usr/bin/env bash
# Fetch the third-party files of the page anew. They are kept here, because plants have no internet.
# Needs npm. To change a version, change it here, run `make vendor`, and commit what changed.
set -euo pipefail
cd "$(dirname "$0")"
PREACT=11.2.0 HTM=3.1.1 UPLOT=1.6.32 LUCIDE=1.62.0
ICONS="boxes check chevron-left chevron-right circle-help clipboard-check graduation-cap history images
  layout-dashboard log-out maximize menu pause play plus radio refresh-cw rotate-ccw search server share-2
  sliders-horizontal trending-up triangle-alert undo-2 upload x"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unpack() { # NAME VERSION: prints the folder of the package
  (cd "$work" && npm pack --silent "$1@$2" > /dev/null && mkdir "$1" && tar -xzf "$1-$2.tgz" -C "$1" --strip-components 1)
  echo "$work/$1"
}

preact=$(unpack preact $PREACT)
grep -v '^//# sourceMappingURL' "$preact/dist/preact.mjs" > preact.mjs
grep -v '^//# sourceMappingURL' "$preact/hooks/dist/hooks.mjs" | sed 's|from *"preact"|from"./preact.mjs"|' > hooks.mjs
cp "$preact/LICENSE" preact.LICENSE
htm=$(unpack htm $HTM)
cp "$htm/dist/htm.mjs" htm.mjs
cp "$htm/LICENSE" htm.LICENSE
uplot=$(unpack uplot $UPLOT)
cp "$uplot/dist/uPlot.esm.js" uplot.mjs
cp "$uplot/dist/uPlot.min.css" uplot.css
cp "$uplot/LICENSE" uplot.LICENSE
lucide=$(unpack lucide-static $LUCIDE)
cp "$lucide/LICENSE" lucide.LICENSE
{
  echo '<svg xmlns="http://www.w3.org/2000/svg">'
  for icon in $ICONS; do
    echo "<symbol id=\"$icon\" viewBox=\"0 0 24 24\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"2\" stroke-linecap=\"round\" stroke-linejoin=\"round\">"
    grep -E '^ *<(path|circle|rect|line|polyline|polygon|ellipse)' "$lucide/icons/$icon.svg"
    echo '</symbol>'
  done
  echo '</svg>'
} > icons.svg
