import type { Entry, Service } from '@tomaat/client';
import { describeParity, withoutTrailingSlashes } from '@tomaat/core';
import { useState } from 'react';
import { Link, useSearchParams } from 'wouter';
import { needsKey } from './access-texts.ts';
import { baseUrl } from './base.ts';
import { FirstDropArea, useFirstDrop } from './first-drop.tsx';
import type { ServiceFit } from './form/fit-finder.ts';
import { formatSeconds, formatSlug, formatTime, sentence } from './format.ts';
import { useMe } from './login.tsx';
import { type Site, safeAddress, useSite } from './site.ts';
import { Empty, faultOf, KindTags, Loading, Problem, Tag, useTitle } from './ui.tsx';

/** The common part of both kinds of card. */
interface Card {
  key: string;
  name: string;
  description: string;
  modality: string;
  anatomy: string;
  task: string;
  /** The target of its link: within this server, or on the server's own page. */
  href?: string;
  external: boolean;
  note?: string;
  live?: boolean;
  /** Announced by TOMAAT v1, which has no signatures. */
  unsigned?: boolean;
  authors?: string;
  version?: string;
  parity?: Entry['parity'];
  typicalSeconds?: number;
  /** Address of a picture of a result. */
  picture?: string;
}

function cardOfService(service: Service): Card {
  const { id, authors, picture, ...rest } = service;
  return {
    ...rest,
    picture: picture && new URL(picture, baseUrl).href,
    key: id,
    href: `/services/${encodeURIComponent(id)}`,
    external: false,
    authors: authors?.join(', '),
  };
}

function cardOfEntry(entry: Entry): Card {
  const { sid, serverUrl, serviceId, live, version, parity } = entry;
  const address = serviceId === undefined ? undefined : safeAddress(serverUrl);
  const base = address && withoutTrailingSlashes(address);
  const { name, description, modality, anatomy, task } = entry;
  return {
    key: sid,
    name,
    description,
    modality,
    anatomy,
    task,
    version,
    parity,
    live,
    unsigned: !entry.signed,
    external: true,
    href: base && live ? `${base}/services/${encodeURIComponent(serviceId!)}` : undefined,
    note: !live
      ? `Last announced: ${formatTime(entry.announcedTime)}. Its server may be down; ask its operator.`
      : base
        ? undefined
        : `Speaks only TOMAAT v1: use 3D Slicer or “tomaat predict ${entry.predictionUrl}”.`,
  };
}

const cardsOf = (site: Site): Card[] =>
  site.kind === 'server' ? site.services.map(cardOfService) : site.entries.map(cardOfEntry);

const filterNames = ['modality', 'anatomy', 'task'] as const;

/** The services of this server, or those announced to this registry. Search and filters are in the address. */
export function Directory() {
  useTitle(undefined);
  const site = useSite();
  const me = useMe();
  const [search, setSearch] = useSearchParams();
  const set = (name: string, value: string) =>
    setSearch(
      (old) => {
        const next = new URLSearchParams(old);
        if (value === '') next.delete(name);
        else next.set(name, value);
        return next;
      },
      { replace: true },
    );
  const cards = site.data ? cardsOf(site.data) : [];
  const drop = useFirstDrop(site.data?.kind === 'server' ? site.data.services : []);
  const words = (search.get('q') ?? '').toLowerCase().split(/\s+/).filter(Boolean);
  const found = cards.filter(
    (card) =>
      filterNames.every(
        (name) => !search.get(name) || card[name].toLowerCase() === search.get(name)!.toLowerCase(),
      ) &&
      words.every((word) =>
        `${card.name} ${card.description} ${card.modality} ${card.anatomy} ${card.task}`
          .toLowerCase()
          .includes(word),
      ),
  );
  const isRegistry = site.data?.kind === 'registry';
  return (
    <>
      <section className="hero">
        <h1>{isRegistry ? 'Find a service' : 'Drop a scan, see the result'}</h1>
        <p>
          {isRegistry
            ? `Models for medical images, published by the people who trained them. Each card links to the server that runs the model; this page uploads nothing. That server may require its own login${needsKey(me.data) ? '; your login to this registry is not valid there' : ''}. This registry forwards scans that programs send to it and does not keep them.`
            : 'Choose a service. Your scan goes only to this server, which computes the result on its operator’s machines and deletes the scan when the job is done.'}
        </p>
      </section>
      {site.isPending && <Loading what="Loading the services …" />}
      {site.isError && (
        <Problem fault={faultOf(site.error)}>
          <button type="button" onClick={() => void site.refetch()}>
            Try again
          </button>
        </Problem>
      )}
      {site.isSuccess && cards.length === 0 && (
        <Empty title="No services yet">
          <p>Servers announce their services here with a key that has the scope announce:</p>
          <pre>
            <code>
              TOMAAT_ANNOUNCE_KEY="$TOMAAT_ANNOUNCE_KEY" tomaat serve APP_FOLDER --announce {baseUrl}
            </code>
          </pre>
          <p className="fine">
            The operator of this registry creates one with{' '}
            <code>tomaat keys create --label NAME --scope announce</code>.
          </p>
        </Empty>
      )}
      {cards.length > 0 && (
        <>
          {!isRegistry && <FirstDropArea drop={drop} />}
          <search className="filters">
            <label>
              Search
              <input
                type="search"
                placeholder="Lungs, brain, mask …"
                value={search.get('q') ?? ''}
                onChange={(event) => set('q', event.target.value)}
              />
            </label>
            {filterNames.map((name) => (
              <Filter
                key={name}
                name={name}
                values={cards.map((card) => card[name])}
                chosen={search.get(name) ?? ''}
                onChoose={(value) => set(name, value)}
              />
            ))}
          </search>
          <p className="fine" role="status">
            {found.length === cards.length
              ? `${cards.length} ${cards.length === 1 ? 'service' : 'services'}`
              : `${found.length} of ${cards.length} services`}
          </p>
          {found.length === 0 && (
            <Empty title="No matching services">
              <button type="button" onClick={() => setSearch({}, { replace: true })}>
                Show all services
              </button>
            </Empty>
          )}
          <ul className="cards">
            {sortByFit(found, drop.found?.fits).map((card) => (
              <li key={card.key}>
                <CardView
                  card={card}
                  fit={drop.found?.fits.get(card.key)}
                  hasPicture={cards.some(({ picture }) => picture !== undefined)}
                />
              </li>
            ))}
          </ul>
        </>
      )}
    </>
  );
}

/** Those that fit come first. */
const sortByFit = (
  cards: readonly Card[],
  fits: ReadonlyMap<string, ServiceFit> | undefined,
): readonly Card[] =>
  fits
    ? [...cards].sort(
        (a, b) => Number(fits.get(b.key)?.fits ?? false) - Number(fits.get(a.key)?.fits ?? false),
      )
    : cards;

function Filter({
  name,
  values,
  chosen,
  onChoose,
}: {
  name: string;
  values: string[];
  chosen: string;
  onChoose(value: string): void;
}) {
  const distinct = [
    ...new Map(values.filter(Boolean).map((value) => [value.toLowerCase(), value])).values(),
  ].sort();
  return (
    <label>
      {formatSlug(name)}
      <select
        value={distinct.find((value) => value.toLowerCase() === chosen.toLowerCase()) ?? ''}
        onChange={(event) => onChoose(event.target.value)}
      >
        <option value="">Any</option>
        {distinct.map((value) => (
          <option key={value} value={value}>
            {formatSlug(value)}
          </option>
        ))}
      </select>
    </label>
  );
}

/** @param hasPicture whether the cards have a place for a picture */
function CardView({
  card,
  fit,
  hasPicture,
}: {
  card: Card;
  fit: ServiceFit | undefined;
  hasPicture: boolean;
}) {
  const { href } = card;
  const title = !href ? (
    card.name
  ) : card.external ? (
    <a href={href}>{card.name}</a>
  ) : (
    <Link href={href}>{card.name}</Link>
  );
  return (
    <article className={href ? 'card leads' : 'card'}>
      {hasPicture && <CardPicture card={card} />}
      <h2>{title}</h2>
      <p className="tags">
        <KindTags of={card} />
        {card.live !== undefined && (
          <Tag tone={card.live ? 'good' : 'bad'}>{card.live ? 'Live' : 'Unreachable'}</Tag>
        )}
        {card.unsigned && <Tag>unsigned</Tag>}
        {fit && <Tag tone={fit.fits ? 'good' : 'bad'}>{fit.fits ? 'Fits your scan' : 'Does not fit'}</Tag>}
      </p>
      {fit && !fit.fits && <p className="note">{sentence(fit.reason)}</p>}
      <p className="description">{card.description}</p>
      {card.parity && <p className="fine">{describeParity(card.parity)}</p>}
      {card.note && <p className="note">{card.note}</p>}
      <p className="fine">
        {[
          card.authors,
          card.version && `version ${card.version}`,
          card.typicalSeconds !== undefined && `typically ${formatSeconds(card.typicalSeconds)}`,
          card.external && href && `on ${new URL(href).host}`,
        ]
          .filter(Boolean)
          .join(' · ')}
      </p>
    </article>
  );
}

/** Where there is none, or it cannot be loaded, its place stays, so that the cards keep their lines. */
function CardPicture({ card: { picture, name, modality } }: { card: Card }) {
  const [failed, setFailed] = useState<string>();
  return picture && failed !== picture ? (
    <img
      className="picture"
      src={picture}
      alt={`A result of ${name}: slices of a scan with its labels`}
      width={640}
      height={320}
      loading="lazy"
      decoding="async"
      onError={() => setFailed(picture)}
    />
  ) : (
    <div className="picture" aria-hidden="true">
      {modality}
    </div>
  );
}
