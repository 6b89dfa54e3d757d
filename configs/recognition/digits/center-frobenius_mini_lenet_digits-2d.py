_base_ = './center_mini_lenet_digits-2d.py'

# The write-up's |features - centres| / (2 B), un-squared, with its weight of 0.2: the mean over B
# is that of the loss.
model = dict(aux_losses=dict(center=dict(distance='frobenius', loss_weight=0.2)))
