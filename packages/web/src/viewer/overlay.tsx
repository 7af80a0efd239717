import { useEffect, useId, useState } from 'react';
import { type OverlayContent, overlayShapes, type PlaneShapes } from './overlay-shapes.ts';
import type { Scene } from './scene.ts';

/** Over the canvas: slice numbers, outlines and rulers. */
export function Overlay({ scene, content }: { scene: Scene; content: OverlayContent }) {
  const [drawn, setDrawn] = useState(() => scene.drawnPlanes());
  useEffect(() => scene.onDraw(() => setDrawn(scene.drawnPlanes())), [scene]);
  const shapes = overlayShapes(drawn, content);
  const id = useId();
  return (
    <svg className="overlay" aria-hidden="true">
      {shapes.map((shape) => (
        <PlaneOverlay key={shape.plane} shape={shape} clip={`${id}${shape.plane}`} />
      ))}
    </svg>
  );
}

function PlaneOverlay({ shape, clip }: { shape: PlaneShapes; clip: string }) {
  const { plane, left, top, width, height, title, isMain, outlines, rulers } = shape;
  return (
    <g data-plane={plane}>
      <clipPath id={clip}>
        <rect x={left} y={top} width={width} height={height} />
      </clipPath>
      <g clipPath={`url(#${clip})`}>
        <path className="outline-casing" d={outlines.map(({ path }) => path).join('')} />
        {outlines.map(({ path, color }) => (
          <path key={color + path.slice(0, 40)} className="outline" d={path} stroke={color} />
        ))}
        {rulers.map(({ from, to, text }) => (
          <g key={`${from} ${to}`} className="ruler">
            <line x1={from[0]} y1={from[1]} x2={to[0]} y2={to[1]} />
            {[from, to].map(([x, y]) => (
              <circle key={`${x} ${y}`} cx={x} cy={y} r={3} />
            ))}
            <text x={to[0] + 8} y={to[1] - 6}>
              {text}
            </text>
          </g>
        ))}
      </g>
      <text className={isMain ? 'slice-title main' : 'slice-title'} x={left + 8} y={top + height - 8}>
        {title}
      </text>
    </g>
  );
}
