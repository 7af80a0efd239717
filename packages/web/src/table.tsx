import type { ComponentProps } from 'react';

/*
 * The elements of a table that narrow windows lay out as blocks: browsers take their roles away then, unless they are
 * stated.
 */

/* biome-ignore-start lint/a11y/noRedundantRoles: see above */
export const Table = (props: ComponentProps<'table'>) => <table role="table" {...props} />;
export const TableHead = (props: ComponentProps<'thead'>) => <thead role="rowgroup" {...props} />;
export const TableBody = (props: ComponentProps<'tbody'>) => <tbody role="rowgroup" {...props} />;
export const TableRow = (props: ComponentProps<'tr'>) => <tr role="row" {...props} />;
export const ColumnHeader = (props: ComponentProps<'th'>) => (
  <th scope="col" role="columnheader" {...props} />
);
export const RowHeader = (props: ComponentProps<'th'>) => <th scope="row" role="rowheader" {...props} />;
export const TableCell = (props: ComponentProps<'td'>) => <td role="cell" {...props} />;
/* biome-ignore-end lint/a11y/noRedundantRoles: see above */
