import { Fragment, useEffect, useRef, useState } from 'react';
import { Label, Radio, RadioGroup } from 'react-aria-components';
import { sentence } from '../format.ts';
import type { SeriesCard } from './messages.ts';
import type { DicomSession } from './session.ts';

export interface SeriesListProps {
  session: DicomSession;
  uid: string | undefined;
  onChoose(card: SeriesCard): void;
}

/** The series in the selected files, the unusable ones and the files that were left out. */
export function SeriesList({ session, uid, onChoose }: SeriesListProps) {
  const usable = usableSeries(session);
  const refused = session.series.filter(({ refusal }) => refusal !== undefined);
  return (
    <div className="series-list">
      {usable.length === 1 && (
        <div className="series-card">
          <SeriesPicture session={session} uid={usable[0].uid} />
          <SeriesText card={usable[0]} />
        </div>
      )}
      {usable.length > 1 && (
        <RadioGroup
          className="radios"
          value={uid ?? null}
          onChange={(chosen) => onChoose(usable.find((card) => card.uid === chosen)!)}
        >
          <Label>There are {usable.length} series. Which one is to be sent?</Label>
          {usable.map((card) => (
            <Radio key={card.uid} value={card.uid} className="series-card">
              <span className="dot" aria-hidden="true" />
              <SeriesPicture session={session} uid={card.uid} />
              <SeriesText card={card} />
            </Radio>
          ))}
        </RadioGroup>
      )}
      {refused.length > 0 && (
        <details className="series-others" open={usable.length === 0}>
          <summary>
            {refused.length === 1 ? '1 series is' : `${refused.length} series are`} not a volume and cannot be
            sent
          </summary>
          <ul>
            {refused.map((card) => (
              <li key={card.uid} className="series-card">
                <SeriesPicture session={session} uid={card.uid} />
                {/* Of the only series, the error below the list says it. */}
                <SeriesText card={session.series.length === 1 ? { ...card, refusal: undefined } : card} />
              </li>
            ))}
          </ul>
        </details>
      )}
      <LeftOut session={session} />
    </div>
  );
}

export const usableSeries = ({ series }: DicomSession): SeriesCard[] =>
  series.filter(({ content, refusal }) => content === 'images' && refusal === undefined);

function SeriesText({ card }: { card: SeriesCard }) {
  const { number, description, modality, bodyPart, date, frames, refusal } = card;
  const which = [number === undefined ? undefined : `Series ${number}`, modality, bodyPart, date];
  const sizes = [...sizesOf(card), frames > 1 ? `${frames} frames (4-D)` : undefined];
  return (
    <span className="series-text">
      <strong>{description || 'No description'}</strong>
      <Pieces texts={which} separator=" · " />
      <Pieces texts={sizes} separator=", " />
      {refusal !== undefined && <span className="series-refusal">{sentence(refusal)}</span>}
    </span>
  );
}

/** Short texts in a line, which is broken between them alone if there is room. */
function Pieces({ texts, separator }: { texts: readonly (string | undefined)[]; separator: string }) {
  const shown = texts.filter((text) => text !== undefined && text !== '');
  return (
    <span className="fine">
      {shown.map((text, i) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a text is its place in the line
        <Fragment key={i}>
          {i > 0 && separator}
          <span className={text!.length <= 24 ? 'whole' : undefined}>{text}</span>
        </Fragment>
      ))}
    </span>
  );
}

function sizesOf({ columns, rows, slices, spacing, imageCount }: SeriesCard): string[] {
  const images = imageCount === 1 ? '1 image' : `${imageCount} images`;
  if (columns === undefined || rows === undefined) return [images];
  if (slices === undefined || !spacing) return [`${images} of ${columns} × ${rows}`];
  const mm = spacing.map((value) => Number(value.toPrecision(3))).join(' × ');
  return [`${columns} × ${rows} × ${slices} voxels`, `${mm} mm`, images];
}

const mostNames = 12;

/** A line for each reason. */
function LeftOut({ session: { leftOut } }: { session: DicomSession }) {
  if (leftOut.length === 0) return null;
  const byReason = new Map<string, string[]>();
  for (const { name, reason } of leftOut) byReason.set(reason, [...(byReason.get(reason) ?? []), name]);
  return (
    <details className="series-others">
      <summary>Left out ({leftOut.length})</summary>
      <ul className="left-out">
        {[...byReason].map(([reason, names]) => (
          <li key={reason}>
            <code>{names.slice(0, mostNames).join(', ')}</code>
            {names.length > mostNames && ` and ${names.length - mostNames} others`}: {reason}
          </li>
        ))}
      </ul>
    </details>
  );
}

/** The middle slice; nothing if it cannot be decoded, which is reported when the series is selected. */
function SeriesPicture({ session, uid }: { session: DicomSession; uid: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [isThere, setThere] = useState(false);
  useEffect(() => {
    const abort = new AbortController();
    session.call('picture', { uid }, { signal: abort.signal }).then(
      ({ width, height, stretch, rgba }) => {
        const drawn = canvas.current;
        if (!drawn || abort.signal.aborted) return;
        drawn.width = width;
        drawn.height = height;
        drawn.style.aspectRatio = `${width} / ${height * stretch}`;
        drawn.getContext('2d')?.putImageData(new ImageData(rgba, width, height), 0, 0);
        setThere(true);
      },
      () => undefined,
    );
    return () => abort.abort();
  }, [session, uid]);
  return (
    <span className="series-picture" aria-hidden="true">
      <canvas ref={canvas} width={1} height={1} data-there={isThere} />
    </span>
  );
}
