import { mount } from '../mount.tsx';
import { GatewayApp } from './gateway-app.tsx';
import '../styles/gateway.css';

mount(<GatewayApp />);
