# Systems that are broken on purpose, to test what goes back from them. What
# breaks is named at each. Those for the live arm break when they are switched
# to; a machine that boots one breaks as well.
{ busybox }:
let
  shell = "${busybox}/bin/busybox sh";
  oneshot = description: script: ''
    [Unit]
    Description=${description}
    Before=xnode-ready.service

    [Service]
    Type=oneshot
    RemainAfterExit=yes
    ExecStart=${shell} -c "${script}"
  '';
  wanted = name: { ${name} = "multi-user.target"; };
in
{
  # every activation fails, after it did its work
  activation.activationEnds = "exit 1";

  # activation never ends
  hang.activationEnds = "exec sleep 1000000";

  # a unit that fails at once
  unit = {
    units."pocket-broken.service" = oneshot "Fail on purpose" "exit 1";
    wantedBy = wanted "pocket-broken.service";
  };

  # a unit that starts well and fails after half a minute
  late = {
    units."pocket-broken.service" = ''
      [Unit]
      Description=Fail on purpose, but not at once

      [Service]
      ExecStart=${shell} -c "sleep 30; exit 1"
    '';
    wantedBy = wanted "pocket-broken.service";
  };

  # every network card goes down
  network.files."systemd/network/00-broken.network" = ''
    [Match]
    Type=ether
    Kind=!*

    [Link]
    ActivationPolicy=down
  '';

  # the agent's program does not start, neither half of it
  agent.program = builtins.toFile "xnode" ''
    #!${shell}
    echo "xnode: broken on purpose" >&2
    exit 1
  '';

  # systemd crashes and does nothing from then on, as by a mistake of its own:
  # its handler of SIGSEGV freezes it (PID 1 cannot be stopped by a signal). Only
  # a watchdog helps.
  freeze = {
    units."pocket-broken.service" = oneshot "Freeze systemd on purpose" "kill -SEGV 1";
    wantedBy = wanted "pocket-broken.service";
  };

  # the kernel panics, if the kernel command line asks for it
  panic = {
    units."pocket-panic.service" = ''
      [Unit]
      Description=Crash the kernel on purpose
      ConditionKernelCommandLine=xnode.test.panic
      Before=xnode-ready.service

      [Service]
      Type=oneshot
      ExecStart=${shell} -c "echo c >/proc/sysrq-trigger"
    '';
    wantedBy = wanted "pocket-panic.service";
  };
}
