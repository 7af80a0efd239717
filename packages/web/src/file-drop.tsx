import type { ReactNode } from 'react';
import { Button as AriaButton, DropZone, FileTrigger } from 'react-aria-components';
import {
  chooseFolder,
  type DropItem,
  type Picked,
  pickedFromDrop,
  pickedFromInput,
  type WalkOptions,
} from './dicom/picked-files.ts';

export interface FileDropProps {
  /** For screen readers. */
  label: string;
  hasFile?: boolean;
  isSmall?: boolean;
  accept?: readonly string[];
  /** Of the button that chooses files. */
  choose?: string;
  isFolderFirst?: boolean;
  /** Receives what finds the files: those of a dropped folder take a while. */
  onPick(pick: (options?: WalkOptions) => Promise<Picked>): void;
  /** Further buttons. */
  actions?: ReactNode;
  /** What is to be dropped here, or what was. */
  children: ReactNode;
}

/** Takes files by drop, by the file picker, and as a folder. */
export function FileDrop({
  label,
  hasFile,
  isSmall,
  accept,
  choose = 'Choose files',
  isFolderFirst,
  onPick,
  actions,
  children,
}: FileDropProps) {
  const className = isSmall ? 'quiet small' : 'quiet';
  const files = (
    <FileTrigger
      allowsMultiple
      acceptedFileTypes={accept}
      onSelect={(list) => list && onPick(async () => pickedFromInput([...list]))}
    >
      <AriaButton className={className}>{choose}</AriaButton>
    </FileTrigger>
  );
  return (
    <DropZone
      aria-label={label}
      className={hasFile ? 'drop has-file' : 'drop'}
      onDrop={({ items }) => onPick((options) => pickedFromDrop(items as DropItem[], options))}
    >
      {children}
      <span className="drop-actions">
        {!isFolderFirst && files}
        <button
          type="button"
          className={className}
          onClick={() => chooseFolder((list) => onPick(async () => pickedFromInput(list)))}
        >
          Choose a folder
        </button>
        {isFolderFirst && files}
        {actions}
      </span>
    </DropZone>
  );
}
