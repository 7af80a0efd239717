import { differenceLabels, formatAgreement, type Vec3, type Volume } from '@tomaat/core';
import { useMemo, useState } from 'react';
import { Link, useSearch } from 'wouter';
import { useSubmittedScan } from '../job/submitted-scan.ts';
import { Empty, faultOf, Loading, Problem, useTitle } from '../ui.tsx';
import type { LabelStyle } from '../viewer/labels.ts';
import { Viewer } from '../viewer/viewer.tsx';
import { ChoiceField } from './choice-field.tsx';
import { ComparisonTable } from './comparison-table.tsx';
import { namedAs } from './label-names.ts';
import type { Compared } from './messages.ts';
import { useComparison } from './use-comparison.ts';
import { type Choice, type Side, useSide } from './use-side.ts';

/** Two label maps of one scan side by side: results, or a result and the user's own reference. Nothing is sent. */
export default function ComparePage() {
  useTitle('Compare');
  const asked = new URLSearchParams(useSearch());
  const [found, setFound] = useState<Choice | undefined>(() => jobOf(asked.get('result')));
  const [expected, setExpected] = useState<Choice | undefined>(() => jobOf(asked.get('reference')));
  const [left, right] = [useSide(found), useSide(expected)];
  const comparison = useComparison(left.data, right.data);
  return (
    <>
      <p className="crumbs">
        <Link href="/jobs">My jobs</Link> / Compare
      </p>
      <section className="hero">
        <h1>Compare two label maps</h1>
        <p>
          Two results of one scan, of two services or two versions, or a result and your own reference. The
          files are read on this computer and are not sent.
        </p>
      </section>
      <div className="compare-choices">
        <ChoiceField label="Result" choice={found} query={left} onChange={setFound} />
        <ChoiceField label="Reference" choice={expected} query={right} onChange={setExpected} />
      </div>
      {comparison.isLoading && <Loading what="Comparing …" />}
      {comparison.error && <Problem fault={faultOf(comparison.error)} />}
      {left.data && right.data && comparison.data ? (
        <Views found={left.data} expected={right.data} compared={comparison.data} />
      ) : (
        !found && !expected && <Empty title="Choose what to compare">{null}</Empty>
      )}
    </>
  );
}

const jobOf = (id: string | null): Choice | undefined => (id ? { kind: 'job', id } : undefined);

const differenceColors = ['#ff6b6b', '#4dabf7', '#ffd43b'];
const differenceStyles: LabelStyle[] = differenceLabels.map(({ value, name }, i) => ({
  value,
  name,
  color: differenceColors[i],
  visible: true,
}));

function Views({ found, expected, compared }: { found: Side; expected: Side; compared: Compared }) {
  const { comparison, difference } = compared;
  const [shown, setShown] = useState<'labels' | 'differences'>('labels');
  const [place, setPlace] = useState<Place>();
  const withScan = found.submission ? found : expected;
  const scan = useSubmittedScan(withScan.submission, withScan.service);
  const foundLabels = useMemo(
    () =>
      namedAs(
        found.labels,
        expected.labels.filter(({ isNamed }) => isNamed),
      ),
    [found.labels, expected.labels],
  );
  const expectedLabels = useMemo(
    () => namedAs(expected.labels, found.labels),
    [expected.labels, found.labels],
  );
  const isDifference = shown === 'differences';
  const view = (side: 'found' | 'expected', labelMap: Volume, labels: readonly LabelStyle[]) =>
    scan.loading ? (
      <Loading what="Reading the scan …" />
    ) : (
      <Viewer
        scan={scan.volume}
        labelMap={labelMap}
        labels={labels}
        display={scan.display}
        target={place && place.from !== side ? place : undefined}
        onMove={(position) =>
          setPlace((old) => (isSamePlace(old?.position, position) ? old : { from: side, position }))
        }
      />
    );
  return (
    <>
      <p className="done-line" role="status">
        {comparison.differ === 0
          ? `All ${comparison.voxels} voxels are equal.`
          : `${comparison.differ} of ${comparison.voxels} voxels differ (${formatAgreement(comparison.agree)} agree).`}
      </p>
      <fieldset className="compare-shown">
        <legend>Left view</legend>
        {(['labels', 'differences'] as const).map((what) => (
          <label key={what}>
            <input type="radio" name="shown" checked={shown === what} onChange={() => setShown(what)} />
            {what === 'labels' ? 'Labels of the result' : 'Differences'}
          </label>
        ))}
        {isDifference &&
          differenceStyles.map(({ value, name, color }) => (
            <span key={value} className="compare-legend">
              <span className="swatch" style={{ backgroundColor: color }} aria-hidden="true" />
              {name}
            </span>
          ))}
      </fieldset>
      <div className="compare-views">
        <section className="panel viewer-panel" aria-label="Result">
          <h2 className="compare-title">{isDifference ? 'Differences' : found.title}</h2>
          {isDifference
            ? view('found', difference, differenceStyles)
            : view('found', found.labelMap, foundLabels)}
        </section>
        <section className="panel viewer-panel" aria-label="Reference">
          <h2 className="compare-title">{expected.title}</h2>
          {view('expected', expected.labelMap, expectedLabels)}
        </section>
      </div>
      <ComparisonTable comparison={comparison} found={found.title} expected={expected.title} />
    </>
  );
}

/** Where the crosshair was put last, RAS+ mm, and in which view: the other one follows. */
interface Place {
  readonly from: 'found' | 'expected';
  readonly position: Vec3;
}

/** A viewer that follows reports its place again, which differs by rounding. */
const isSamePlace = (a: Vec3 | undefined, b: Vec3) =>
  a !== undefined && Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]) < 0.01;
