import type { ReactNode } from 'react';
import { ToggleButton, ToggleButtonGroup } from 'react-aria-components';
import { type Plane, planes, type View } from './layouts.ts';
import { NumberField } from './number-field.tsx';
import { planeNames } from './overlay-shapes.ts';
import type { Tool } from './pointer.ts';
import type { Controls } from './use-controls.ts';

const viewNames: readonly { id: View; name: string; hint: string }[] = [
  { id: 'slices', name: 'Slices', hint: 'One large plane and the other two' },
  { id: 'row', name: 'Side by side', hint: 'Three planes of equal rank' },
  { id: 'one', name: 'One plane', hint: 'Also: double-click a plane' },
  { id: 'all', name: 'Slices and 3-D', hint: 'The planes and the 3-D view' },
  { id: '3d', name: '3-D', hint: 'The 3-D view alone; drag to turn it' },
];

const toolNames: readonly { id: Tool; name: string; hint: string }[] = [
  { id: 'crosshair', name: 'Crosshair', hint: 'Click or drag to move the crosshair' },
  {
    id: 'window',
    name: 'Window',
    hint: 'Drag: right is wider, up is brighter. With every tool: drag with the right button',
  },
  { id: 'ruler', name: 'Ruler', hint: 'Drag from one end to the other. With the keyboard: M at either end' },
];

/** The choices above the picture. */
export function Toolbar({ controls, plain }: { controls: Controls; plain: boolean }) {
  const { kept, tool, slice, hasScan, hasLabels } = controls;
  return (
    <div className="viewer-toolbar">
      <Choice label="View" items={viewNames} chosen={kept.view} onChoose={controls.setView} />
      {!plain && kept.view !== '3d' && (
        <Choice
          label={kept.view === 'row' ? 'Plane for the keys' : 'Large plane'}
          items={planes.map((id) => ({ id, name: planeNames[id] }))}
          chosen={kept.main}
          onChoose={controls.setMain}
        />
      )}
      {slice && kept.view !== '3d' && (
        <NumberField
          label={`${planeNames[slice.plane]} slice`}
          shown="Slice"
          value={String(slice.number)}
          minimum={1}
          maximum={slice.count}
          step={1}
          after={`of ${slice.count}`}
          onChange={controls.goToSlice}
        />
      )}
      {!plain && (
        <Choice<Tool>
          label="Tool"
          items={toolNames.filter(({ id }) => id !== 'window' || hasScan)}
          chosen={tool}
          onChoose={controls.setTool}
        />
      )}
      <div className="viewer-buttons">
        {!plain && hasLabels && (
          <ToggleButton
            className="quiet small"
            isSelected={controls.isOutlined}
            onChange={controls.setOutlined}
          >
            Outline
          </ToggleButton>
        )}
        {/* There before the first ruler, so that the picture does not move while one is drawn. */}
        {!plain && (tool === 'ruler' || controls.hasRulers) && (
          <Action isDisabled={!controls.hasRulers} onPress={controls.removeRulers}>
            Remove rulers
          </Action>
        )}
        {!plain && <Action onPress={controls.takeShot}>Screenshot</Action>}
        <Action onPress={controls.toggleFull}>{controls.isFull ? 'Leave full screen' : 'Full screen'}</Action>
        <Action label="Help on the viewer" onPress={controls.openHelp}>
          ?
        </Action>
      </div>
    </div>
  );
}

function Choice<Id extends View | Plane | Tool>({
  label,
  items,
  chosen,
  onChoose,
}: {
  label: string;
  items: readonly { id: Id; name: string; hint?: string }[];
  chosen: Id;
  onChoose(id: Id): void;
}) {
  return (
    <ToggleButtonGroup
      aria-label={label}
      className="segments"
      selectionMode="single"
      disallowEmptySelection
      selectedKeys={[chosen]}
      onSelectionChange={(keys) => onChoose([...keys][0] as Id)}
    >
      {items.map(({ id, name, hint }) => (
        <ToggleButton key={id} id={id} render={(props) => <button {...props} title={hint} />}>
          {name}
        </ToggleButton>
      ))}
    </ToggleButtonGroup>
  );
}

function Action({
  label,
  isDisabled,
  onPress,
  children,
}: {
  label?: string;
  isDisabled?: boolean;
  onPress(): void;
  children: ReactNode;
}) {
  return (
    <button type="button" className="quiet small" aria-label={label} disabled={isDisabled} onClick={onPress}>
      {children}
    </button>
  );
}
