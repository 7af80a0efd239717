/** Colours for labels without one, in the order of the labels; neighbours are easy to distinguish (after Paul Tol's “bright” scheme). */
export const labelPalette: readonly string[] = [
  '#4477aa',
  '#ee6677',
  '#228833',
  '#ccbb44',
  '#66ccee',
  '#aa3377',
  '#ee8866',
  '#bbcc33',
  '#99ddff',
  '#ffaabb',
];
