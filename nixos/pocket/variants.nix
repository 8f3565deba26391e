# Systems that are broken on purpose, to test what goes back from them. Each
# boots normally; what breaks is named here.
{ busybox }:
{
  # every activation fails, after it did its work
  activation.activationEnds = "exit 1";

  # a unit that fails at once
  unit = {
    units."pocket-broken.service" = ''
      [Unit]
      Description=Fail on purpose
      Before=xnode-ready.service

      [Service]
      Type=oneshot
      ExecStart=${busybox}/bin/busybox false
    '';
    wantedBy."pocket-broken.service" = "multi-user.target";
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
      ExecStart=${busybox}/bin/busybox sh -c "echo c >/proc/sysrq-trigger"
    '';
    wantedBy."pocket-panic.service" = "multi-user.target";
  };
}
