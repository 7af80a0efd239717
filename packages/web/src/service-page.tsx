import { dispositionName, type InputParameter, type Service } from '@tomaat/client';
import {
  describeParity,
  mmDigits,
  neutralNames,
  parseParameter,
  spacingOf,
  TomaatError,
  type Vec3,
  type VolumeFactsOf,
} from '@tomaat/core';
import { Fragment, useEffect, useMemo, useState } from 'react';
import { Tab, TabList, TabPanel, Tabs } from 'react-aria-components';
import { Link } from 'wouter';
import { keyNote, needsKey } from './access-texts.ts';
import { basePath, baseUrl } from './base.ts';
import { codeSamples } from './code-samples.ts';
import { ParameterField, PointsField, TransformField } from './form/fields.tsx';
import { onlyVolumeInput } from './form/fit.ts';
import { type ChosenVolume, initialValues, type PendingVolume } from './form/inputs.ts';
import { refusals, type Scan } from './form/scan.ts';
import { placesOf, SendPanel, useSending, whetherHere } from './form/send-panel.tsx';
import { VolumeField } from './form/volume-field.tsx';
import { deviceName, formatSeconds } from './format.ts';
import { useMe } from './login.tsx';
import { useLogins } from './logins.ts';
import { safeAddress, useService, useSite } from './site.ts';
import type { Submission } from './store.ts';
import { CopyButton, type Fault, faultOf, KindTags, Loading, Problem, useTitle } from './ui.tsx';
import { newKey } from './upload.ts';

/** One service: its purpose, its form, and code that does the same. */
export default function ServicePage({ id }: { id: string }) {
  const site = useSite();
  const service = useService(id);
  useTitle(service.data?.name ?? 'Service');
  if (site.data?.kind === 'registry') {
    return (
      <Problem
        fault={{
          title: 'This is a registry',
          message: 'Services run on their own servers. Choose one from the list; its card links there.',
        }}
      >
        <Link href="/">All services</Link>
      </Problem>
    );
  }
  if (service.isPending) return <Loading what="Loading the service …" />;
  if (service.isError) {
    return (
      <Problem fault={faultOf(service.error)}>
        <button type="button" onClick={() => void service.refetch()}>
          Try again
        </button>
        <Link href="/">All services</Link>
      </Problem>
    );
  }
  return <ServiceView service={service.data} />;
}

function ServiceView({ service }: { service: Service }) {
  const [volumes, setVolumes] = useState<Record<string, ChosenVolume | undefined>>({});
  const [pending, setPending] = useState<FormProps['pending']>({});
  const [transforms, setTransforms] = useState<Record<string, File | undefined>>({});
  const [values, setValues] = useState(() => initialValues(service.inputs));
  const setValue = (name: string, value: InputParameter) => setValues((old) => ({ ...old, [name]: value }));
  const frame = Object.values(volumes).find((chosen) => chosen?.frame !== undefined)?.frame;
  return (
    <>
      <p className="crumbs">
        <Link href="/">Services</Link>
      </p>
      <section className="service-head">
        <h1>{service.name}</h1>
        <p className="tags">
          <KindTags of={service} />
        </p>
        <p className="lead">{service.description}</p>
        {onlyVolumeInput(service) && placesOf(service).includes('server') && (
          <p>
            <Link href={`/services/${encodeURIComponent(service.id)}/batch`}>Many scans at once</Link>
          </p>
        )}
      </section>
      <div className="columns">
        <PredictionForm
          service={service}
          volumes={volumes}
          pending={pending}
          transforms={transforms}
          values={values}
          onVolume={(name, chosen) => setVolumes((old) => ({ ...old, [name]: chosen }))}
          onPending={(name, why) => setPending((old) => ({ ...old, [name]: why }))}
          onTransform={(name, file) => setTransforms((old) => ({ ...old, [name]: file }))}
          onValue={setValue}
        />
        <ServiceFacts service={service} />
      </div>
      {placesOf(service).includes('server') && <CodeTabs service={service} values={values} frame={frame} />}
    </>
  );
}

// ---- The form ----

interface FormProps {
  service: Service;
  volumes: Record<string, ChosenVolume | undefined>;
  /** Why fields whose files were selected have no volume yet. */
  pending: Record<string, PendingVolume | undefined>;
  transforms: Record<string, File | undefined>;
  values: Record<string, InputParameter>;
  onVolume(name: string, chosen: ChosenVolume | undefined): void;
  onPending(name: string, why: PendingVolume | undefined): void;
  onTransform(name: string, file: File | undefined): void;
  onValue(name: string, value: InputParameter): void;
}

function PredictionForm(props: FormProps) {
  const { service, volumes, transforms, values, onVolume, onPending, onTransform, onValue } = props;
  const [placing, setPlacing] = useState<string>();
  const [fault, setFault] = useState<Fault>();
  const missing = whatIsMissing(props);
  const volumeInputs = service.inputs.filter((input) => input.type === 'volume');
  const sizeBytes = Object.values(volumes).reduce(
    (sum, chosen) => sum + (chosen?.removal?.sizeBytes ?? chosen?.scan.sizeBytes ?? 0),
    0,
  );
  const samples = useSample(service, (files) => {
    void import('./form/scan.ts').then(async ({ openScan }) => {
      const scan = await openScan(files);
      onVolume(volumeInputs[0].name, { scan, frame: scan.header.frames > 1 ? 0 : undefined });
    }, setSampleFault);
  });
  function setSampleFault(error: unknown) {
    setFault(faultOf(error));
  }

  async function makeSubmission(): Promise<Submission> {
    const files: Submission['files'] = {};
    // In the service's order: a result lies on the first volume.
    const sent = volumeInputs.flatMap(({ name, frames }) => {
      const chosen = volumes[name];
      return chosen ? [{ name, chosen, shape: shapeOf(chosen.scan.header, frames === 'all') }] : [];
    });
    for (const { name, chosen } of sent) files[name] = await chosen.scan.anonymous();
    for (const [name, file] of Object.entries(transforms))
      if (file) files[name] = [{ name: neutralNames(name, [file.name])[0], blob: file }];
    return {
      key: newKey(),
      service: service.id,
      serviceName: service.name,
      files,
      values: sentValues(service, values),
      frame: sent.find(({ chosen }) => chosen.frame !== undefined)?.chosen.frame,
      fileName: sent[0]?.chosen.scan.name ?? 'no file',
      series: Object.fromEntries(
        sent.flatMap(({ name, chosen: { scan, frame } }) =>
          scan.dicom ? [[name, { ...scan.dicom.keepOriginals(), frame }]] : [],
        ),
      ),
      shapes: Object.fromEntries(sent.map(({ name, shape }) => [name, shape])),
      createdTime: new Date().toISOString(),
    };
  }
  const sending = useSending(makeSubmission);
  const start = () => {
    if (missing.length === 0) void sending.start(placesOf(service)[0]);
  };

  return (
    <form
      className="panel form"
      aria-label="Prediction"
      onSubmit={(event) => {
        event.preventDefault();
        start();
      }}
    >
      {volumeInputs.map((input) => (
        <VolumeField
          key={input.name}
          service={service}
          input={input}
          chosen={volumes[input.name]}
          points={placing ? (values[placing] as readonly Vec3[]) : shownPoints(service, values)}
          onChoose={(chosen) => onVolume(input.name, chosen)}
          onPending={(why) => onPending(input.name, why)}
          onMove={(position, clicked) => {
            if (!clicked || placing === undefined) return;
            const old = values[placing] as readonly Vec3[];
            const header = volumes[input.name]?.scan.header;
            const spacingMm = header ? Math.min(...spacingOf(header.affine)) : 1;
            onValue(placing, [
              ...old,
              position.map((mm) => Number(mm.toFixed(1 + mmDigits(spacingMm)))) as [number, number, number],
            ]);
          }}
        />
      ))}
      {service.sample && volumeInputs.length > 0 && !volumes[volumeInputs[0].name] && (
        <p className="sample">
          <button
            type="button"
            className="quiet"
            disabled={samples.loading}
            onClick={() => void samples.load()}
          >
            {samples.loading ? 'Loading the sample …' : 'Try it with the sample'}
          </button>
          <span className="fine">No scan at hand? The service includes a sample volume.</span>
        </p>
      )}
      {samples.error !== undefined && <Problem fault={faultOf(samples.error)} />}
      {service.inputs.map((input) => {
        if (input.type === 'volume') return null;
        if (input.type === 'transform') {
          return (
            <TransformField
              key={input.name}
              input={input}
              file={transforms[input.name]}
              onChange={(file) => onTransform(input.name, file)}
            />
          );
        }
        if (input.type === 'fiducials') {
          return (
            <PointsField
              key={input.name}
              input={input}
              points={values[input.name] as readonly Vec3[]}
              placing={placing === input.name}
              canPlace={Object.values(volumes).some((chosen) => chosen?.volume)}
              onPlacing={(on) => setPlacing(on ? input.name : undefined)}
              onChange={(points) => onValue(input.name, points)}
            />
          );
        }
        return (
          <ParameterField
            key={input.name}
            input={input}
            value={values[input.name]}
            onChange={(value) => onValue(input.name, value)}
          />
        );
      })}
      <SendPanel service={service} missing={missing} sizeBytes={sizeBytes} sending={sending} />
      {fault && <Problem fault={fault} />}
    </form>
  );
}

/** What the memory of a computation depends on. */
const shapeOf = (
  { size, affine, components, frames, voxelType }: Scan['header'],
  allFrames: boolean,
): VolumeFactsOf => ({ size, affine, components: components * (allFrames ? frames : 1), voxelType });

function shownPoints(service: Service, values: Record<string, InputParameter>): readonly Vec3[] {
  return service.inputs
    .filter(({ type }) => type === 'fiducials')
    .flatMap(({ name }) => values[name] as Vec3[]);
}

/** Optional points that were not placed are omitted. */
function sentValues(
  service: Service,
  values: Record<string, InputParameter>,
): Record<string, InputParameter> {
  const optional = new Set(
    service.inputs.filter((input) => input.type === 'fiducials' && input.optional).map(({ name }) => name),
  );
  return Object.fromEntries(
    Object.entries(values).filter(
      ([name, value]) => !(optional.has(name) && Array.isArray(value) && value.length === 0),
    ),
  );
}

function whatIsMissing({ service, volumes, pending, transforms, values }: FormProps): string[] {
  const isOnly = service.inputs.filter(({ type }) => type === 'volume').length === 1;
  return service.inputs.flatMap((input) => {
    const label = input.label ?? input.name;
    if (input.type === 'volume') {
      const chosen = volumes[input.name];
      if (pending[input.name] === 'reading') return [`${label} is being read.`];
      if (pending[input.name] === 'series')
        return [isOnly ? 'Choose a series first.' : `Choose a series for ${label} first.`];
      if (!chosen) return input.optional ? [] : [`Drop ${label} first.`];
      if (chosen.error !== undefined) return [`${label} cannot be read.`];
      if (refusals(service.acceptance as never, input.name, chosen.scan.header, chosen.volume).length > 0)
        return [`${label} is not accepted.`];
      return chosen.scan.dicom && !chosen.removal ? [`${label} is being de-identified.`] : [];
    }
    if (input.type === 'transform')
      return input.optional || transforms[input.name] ? [] : [`Choose ${label} first.`];
    try {
      parseParameter(label, input, values[input.name]);
      return [];
    } catch (error) {
      return [error instanceof TomaatError ? error.message : String(error)];
    }
  });
}

function useSample(service: Service, onFiles: (files: File[]) => void) {
  const [loading, setLoading] = useState(false);
  const [error, setError] = useState<unknown>();
  async function load() {
    setLoading(true);
    setError(undefined);
    try {
      // Only from this server, regardless of the card.
      const address = new URL(service.sample!, baseUrl);
      if (address.origin !== location.origin)
        throw new TomaatError(
          'FORBIDDEN',
          'The sample is on another server, and this page connects only to its own. Use your own volume.',
        );
      // Behind a proxy whose path the server does not know.
      if (!address.pathname.startsWith(`${basePath}/`)) address.pathname = basePath + address.pathname;
      const response = await fetch(address);
      if (response.status === 401) throw new TomaatError('UNAUTHORIZED', 'The session has ended.');
      if (!response.ok)
        throw new TomaatError(
          'NOT_FOUND',
          `The sample was not found (HTTP ${response.status}). Use your own volume.`,
        );
      const name = dispositionName(response.headers.get('content-disposition')) ?? 'sample.nii.gz';
      onFiles([new File([await response.blob()], name)]);
    } catch (fault) {
      setError(fault);
    } finally {
      setLoading(false);
    }
  }
  const logins = useLogins();
  // What stopped because a login was missing continues after the login.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the login is what it waits for
  useEffect(() => {
    if (error instanceof TomaatError && error.code === 'UNAUTHORIZED') void load();
  }, [logins]);
  return { loading, error, load };
}

// ---- The card ----

/** On what the author has compared results, and what computes here; says where they differ. */
function DeviceFacts({ service: { devices, processing } }: { service: Service }) {
  if (!devices) return null;
  const isVerified = (device: string) => devices.some((kind) => device.split(':')[0] === kind);
  return (
    <>
      <dt>Verified on</dt>
      <dd>{devices.map(deviceName).join(', ')}</dd>
      {processing?.devices?.map((device, i) => (
        <Fragment key={device}>
          {i === 0 && <dt>Computed on</dt>}
          <dd>
            {deviceName(device)}
            {!isVerified(device) && ' (not verified by the author)'}
          </dd>
        </Fragment>
      ))}
    </>
  );
}

function ServiceFacts({ service }: { service: Service }) {
  const homepage = safeAddress(service.homepage);
  return (
    <aside className="panel facts-panel" aria-label="About this service">
      <h2>Intended use</h2>
      <p>{service.intendedUse}</p>
      {service.limitations && (
        <>
          <h2>Limits</h2>
          <p>{service.limitations}</p>
        </>
      )}
      {service.parity && (
        <>
          <h2>Agreement</h2>
          <p>{describeParity(service.parity)}</p>
        </>
      )}
      {(service.labels?.length ?? 0) > 0 && (
        <>
          <h2>What it labels</h2>
          <ul className="legend">
            {service.labels.map(({ value, name, color }) => (
              <li key={`${value} ${name}`}>
                <span
                  className="swatch"
                  style={{ backgroundColor: color ?? 'var(--line)' }}
                  aria-hidden="true"
                />
                {name}
              </li>
            ))}
          </ul>
        </>
      )}
      <h2>Details</h2>
      <dl className="details">
        <dt>Version</dt>
        <dd>{service.version}</dd>
        <dt>Authors</dt>
        <dd>{service.authors?.join(', ')}</dd>
        <dt>Licence</dt>
        <dd>{service.licence}</dd>
        {service.typicalSeconds !== undefined && (
          <>
            <dt>Typical time</dt>
            <dd>{formatSeconds(service.typicalSeconds)}</dd>
          </>
        )}
        <DeviceFacts service={service} />
        <dt>On your computer</dt>
        <dd>{whetherHere(service)}</dd>
        {homepage && (
          <>
            <dt>Home page</dt>
            <dd>
              <a href={homepage} rel="noreferrer noopener">
                {new URL(homepage).host}
              </a>
            </dd>
          </>
        )}
        {service.modelSha256 && (
          <>
            <dt>Model</dt>
            {(service.modelSha256s ?? [service.modelSha256]).map((hash) => (
              <dd key={hash}>
                <code title={hash}>sha256:{hash.slice(0, 12)}…</code>
              </dd>
            ))}
          </>
        )}
      </dl>
      {service.citation && (
        <>
          <h2>Please cite</h2>
          <blockquote>{service.citation}</blockquote>
          <CopyButton text={service.citation} label="Copy the citation" />
        </>
      )}
    </aside>
  );
}

function CodeTabs({
  service,
  values,
  frame,
}: {
  service: Service;
  values: Record<string, InputParameter>;
  frame?: number;
}) {
  const me = useMe();
  const withKey = needsKey(me.data);
  const note = keyNote(me.data);
  const samples = useMemo(
    () => codeSamples(service, baseUrl, sentValues(service, values), { frame, withKey }),
    [service, values, frame, withKey],
  );
  return (
    <section className="panel code-panel" aria-labelledby="code-title">
      <h2 id="code-title">Use from code</h2>
      {note && <p className="fine">{note}</p>}
      <Tabs>
        <TabList aria-label="Language" className="segments">
          {samples.map(({ name }) => (
            <Tab key={name} id={name}>
              {name}
            </Tab>
          ))}
        </TabList>
        {samples.map(({ name, code }) => (
          <TabPanel key={name} id={name} className="code-tab">
            <pre>
              <code>{code}</code>
            </pre>
            <CopyButton text={code} />
          </TabPanel>
        ))}
      </Tabs>
    </section>
  );
}
