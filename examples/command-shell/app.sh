#!/bin/sh
# The folders and the parameters are in the environment too; the last three arguments say the same.
set -eu

volume=$TOMAAT_INPUT/volume.nii.gz
header=$TOMAAT_OUTPUT/.header

# Numbers of the header from a byte on: numbers TYPE FIRST COUNT
numbers() {
  od -A n -t "$1" -j "$2" -N "$3" "$header" | tr -s ' \n' ' ' | sed 's/^ //; s/ $//'
}

echo '{"fraction": 0.1, "stage": "reading"}'
gzip -dc "$volume" | head -c 352 > "$header"
if [ "$(numbers d4 0 4)" != 348 ]; then
  echo 'The volume has an axis of more than 32767 voxels. Crop it first.' >&2
  exit 2
fi

# No tool for JSON is needed to find one word.
greeting=$(sed -n 's/.*"greeting":"\([^"]*\)".*/\1/p' "$TOMAAT_PARAMS")
size=$(numbers d2 42 6)
echo "size $size"
echo '{"fraction": 0.5, "stage": "writing"}'
printf '%s! The volume has %s voxels.\n' "$greeting" "$(echo "$size" | sed 's/ / x /g')" > "$TOMAAT_OUTPUT/report.txt"

# The last number of each row of the sform is where the first voxel lies: mm, RAS.
printf '%s,%s,%s\n' "$(numbers f4 292 4)" "$(numbers f4 308 4)" "$(numbers f4 324 4)" > "$TOMAAT_OUTPUT/corner.txt"
rm "$header"
